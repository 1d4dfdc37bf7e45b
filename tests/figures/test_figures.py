"""Every figure says what it shows; the numbers in it are those of its table and of the result."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from drawn import PALETTE, axes_without_unit, colors_of
from invented_films import FILMS

from darec.data.interactions import Dataset
from darec.errors import ConfigError, DataError
from darec.explain.attention import Attention, WindowTokens, draw_mask, explain_attention, summarize_attention
from darec.explain.averages import UserAverage
from darec.explain.beliefs import Beliefs
from darec.explain.effects import HistoryEffects
from darec.explain.layers import AdapterReading
from darec.explain.masked_tokens import HiddenWords, hide_words
from darec.explain.order import OrderSensitivity
from darec.explain.score_terms import ScoreBreakdown
from darec.figures import attention as attention_figures
from darec.figures.adaption import weights_figure
from darec.figures.averages import averages_figure, averages_table
from darec.figures.beliefs import beliefs_figure
from darec.figures.categories import categories_figure, instead_figure
from darec.figures.cf_ranks import cf_ranks_figure
from darec.figures.data import history_lengths_figure, history_lengths_table, popularity_figure, popularity_table
from darec.figures.effects import (
    REMAINDER,
    TOTAL,
    effects_figure,
    effects_table,
    rank_changes_figure,
    rank_changes_table,
)
from darec.figures.evaluation import slices_figure, slices_table, wins_and_losses_figure, wins_and_losses_table
from darec.figures.layers import contributions_figure
from darec.figures.masked_tokens import expected_words_figure, expected_words_table
from darec.figures.order import order_drop_figure, order_drop_table, order_figure, order_table
from darec.figures.palette import ITEM_COLORS, NEGATIVE, POSITIVE, ink_on, item_color, labels, log_axis, plain, wrap
from darec.figures.score_terms import score_terms_figure, score_terms_table
from darec.figures.search import architecture_figure
from darec.figures.training import (
    four_bit_weights_figure,
    four_bit_weights_table,
    training_curves_figure,
    training_curves_table,
)
from darec.model.recommender import DarecModel

HISTORY = [13, "An Unseen Film", 5]  # 13 has signs that figures would read as marks


@pytest.fixture(scope="module")
def model(make_model: Callable[..., DarecModel]) -> DarecModel:
    return make_model()


@pytest.fixture(scope="module")
def titles(film_dataset: Dataset) -> list[str]:
    return film_dataset.catalog.titles


@pytest.fixture(scope="module")
def attention(model: DarecModel) -> Attention:
    return explain_attention(model, HISTORY)


@pytest.fixture(scope="module")
def hidden(model: DarecModel, attention: Attention) -> HiddenWords:
    return hide_words(model, HISTORY, attention.tokens.words()[-1:].tolist(), k=3)


EFFECTS = HistoryEffects((13, "An Unseen Film", 5), 7, np.array([0.5, np.nan, -0.25]), -2.0, 0.75)
BREAKDOWN = ScoreBreakdown(
    np.array([13, 2]),
    np.array([[1.0, -1.0], [0.5, 0.0], [0.0, 0.0], [0.0, 2.0], [0.25, 0.5]]),  # no prior
    np.array([1.75, 1.5]),
    np.array([-1.0, -1.25]),
    np.array([1, 2]),
    np.array([4, 1]),
)
ORDER = OrderSensitivity(np.array([13, 2]), np.array([[0, 1], [1, 0]]), np.array([3, 5]), np.array([[3, 5], [1, 9]]))
DROPS = {"DARec": {"users": 9, "ndcg@10": 0.5, "shuffled_ndcg@10": 0.4, "drop": 0.1, "low": 0.05, "high": 0.2}}
AVERAGE = UserAverage(("own", "other"), np.array([[[0.2, 0.8], [0.4, 0.6]], [[0.4, 0.6], [0.6, 0.4]]]), 2)
TERMS = UserAverage(("text", "prior"), np.array([[[1.0, 2.0]], [[3.0, 2.0]]]), 2)
EVENTS = [
    {"stage": "collaborative", "epoch": 1, "loss": 9.0, "ndcg@10": 0.1, "seconds": 120.0},
    {"stage": "training", "epoch": 1, "step": 1, "loss": 3.0, "next_item": 2.0, "seconds": 30.0},
    {"stage": "training", "epoch": 1, "step": 2, "loss": 2.5, "next_item": 1.5, "seconds": 30.0},
    {"stage": "validation", "epoch": 1, "step": 2, "ndcg@10": 0.25},
]
LEVELS = np.array([-1.0, 0.0, 1.0])
WEIGHTS = np.array([[2.0, -2.0, 0.9, 1.1], [0.0, 0.0, 0.0, 0.0], [0.5, 0.1, -0.1, 0.0]])
SLICES = [
    {"slice": "history_length", "from": 1, "to": 5, "users": 120, "reliable": True}
    | {"hr@10": {"mean": 0.5, "low": 0.4, "high": 0.6}, "ndcg@10": {"mean": 0.3, "low": 0.2, "high": 0.35}},
    {"slice": "history_length", "from": 6, "to": None, "users": 9, "reliable": False}
    | {"hr@10": {"mean": 0.1, "low": 0.0, "high": 0.3}, "ndcg@10": {"mean": 0.05, "low": 0.0, "high": 0.2}},
]
INSTEAD = pd.DataFrame({"category": ["War"], "of_targets": [0.25], "of_lists": [0.5], "difference": [0.25]})
READINGS = [AdapterReading(layer=0, kind="serial", size=8, parameters=64, weight=0.5, contribution=0.1)]
BELIEFS = Beliefs(
    "loves war films",
    pd.DataFrame(
        {"title": ["A"], "item": [3], "true": [0.5], "believed": [0.25], "true_rank": [1], "believed_rank": [2]}
    ),
    1,
)
FIRST = pd.DataFrame({"user_id": ["a", "b", "c", "d"], "target": [1, 2, 3, 4], "rank": [1, 5, 7, 2]})
SECOND = pd.DataFrame({"user_id": ["d", "c", "b", "a"], "target": [4, 3, 2, 1], "rank": [9, 7, 1, 4]})


@pytest.fixture(scope="module")
def figures(attention: Attention, hidden: HiddenWords, model: DarecModel, titles: list[str]) -> list[go.Figure]:
    """One of each kind."""
    tokens, mask = draw_mask(model, HISTORY, "causal")
    return [
        attention_figures.attention_figure(attention, 0),
        attention_figures.attention_wall_figure(attention),
        attention_figures.item_attention_figure(attention, titles),
        attention_figures.attention_shares_figure(attention),
        attention_figures.mask_figure(tokens, mask, "causal"),
        attention_figures.hidden_word_attention_figure(hidden.hidden[0], hidden.tokens),
        expected_words_figure(hidden.hidden[0]),
        effects_figure(EFFECTS, titles),
        rank_changes_figure(np.array([13, 2]), np.array([1, 0]), np.array([60, 2]), titles),
        score_terms_figure(BREAKDOWN, titles),
        order_figure(ORDER, titles),
        order_drop_figure(DROPS),
        averages_figure({"cold": AVERAGE, "rest": AVERAGE}, "Attention", "share of attention (0 to 1)"),
        averages_figure({"cold": TERMS}, "Terms", "score above the mean (log-odds)"),
        training_curves_figure(training_curves_table(EVENTS)),
        four_bit_weights_figure(WEIGHTS, LEVELS, block=4),
        popularity_figure(np.arange(20), titles),
        history_lengths_figure([3, 4, 4]),
        slices_figure({"DARec": SLICES}, "history_length"),
        wins_and_losses_figure(FIRST, SECOND, ("DARec", "SASRec")),
        categories_figure([{**row, "category": str(row["from"])} for row in SLICES]),
        instead_figure(INSTEAD, "genres"),
        architecture_figure([["lora_attention:8"], []]),
        contributions_figure(READINGS, 4),
        weights_figure({"this history": np.array([[0.25, 0.75]])}, ["none", "serial"]),
        cf_ranks_figure(BREAKDOWN, titles),
        beliefs_figure(BELIEFS),
    ]


def test_every_figure_has_titles_hover_text_and_no_background(figures: list[go.Figure]):
    for figure in figures:
        layout = figure.to_dict()["layout"]
        assert layout["title"]["text"]
        for side in ("xaxis", "yaxis"):  # one of them where several stand side by side
            axes = [axis for name, axis in layout.items() if name.startswith(side)]
            assert any(axis.get("title", {}).get("text") for axis in axes), (layout["title"]["text"], side)
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
        assert "font" not in layout  # its colour is the page's
        assert any(trace.hovertemplate for trace in figure.data)
        shown = str(figure.to_dict()["data"]) + str({k: v for k, v in layout.items() if k != "template"})
        assert "<b>" not in shown
        assert "$" not in shown


def test_every_figure_keeps_to_the_palette_and_its_numbers_have_units(figures: list[go.Figure]):
    for figure in figures:
        assert colors_of(figure) <= PALETTE
    assert not [title for figure in figures for title in axes_without_unit(figure)]


def test_attention_figure_holds_the_weights_and_leaves_out_what_is_masked(attention: Attention):
    heatmap = attention_figures.attention_figure(attention, 1, 2).data[0]
    np.testing.assert_array_equal(np.isnan(heatmap.z), ~attention.mask)
    np.testing.assert_allclose(np.nansum(heatmap.z, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(heatmap.z[attention.mask], attention.weights[1, 2][attention.mask])
    assert len(set(heatmap.x)) == len(attention.tokens.texts)  # a word that comes twice keeps both its places
    table = attention_figures.attention_table(attention, 1, 2)
    np.testing.assert_allclose(table.groupby("from position")["weight"].sum(), 1, atol=1e-5)
    mean = attention_figures.attention_table(attention, 1)
    np.testing.assert_allclose(mean["weight"], attention.weights[1].mean(axis=0)[attention.mask])


def test_strongest_weights_share_a_colour_and_the_prefix_does_not_set_the_scale():
    tokens = WindowTokens(("[BOS]", "a", "b"), np.array([-1, 0, 0]), np.array([0, 1, 1]), (3,), 0)
    mask = np.tril(np.ones((3, 3), bool))
    weights = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]])[None, None]
    figure = attention_figures.attention_figure(summarize_attention("causal", tokens, mask, weights), 0)
    assert figure.data[0].zmax == pytest.approx(0.5)


@pytest.mark.parametrize(("layer", "head"), [(2, None), (-1, 0), (0, 4)])
def test_layer_or_head_that_is_not_there_is_refused(attention: Attention, layer: int, head: int | None):
    with pytest.raises(ConfigError, match=f"between 0 and 1, heads between 0 and 3; got {layer} and {head}"):
        attention_figures.attention_figure(attention, layer, head)


def test_wall_shows_each_head_in_its_place(attention: Attention):
    figure = attention_figures.attention_wall_figure(attention)
    heatmap, centres = figure.data
    size = len(attention.tokens.texts)
    assert heatmap.z.shape == (2 * size, 4 * size)
    corner = heatmap.z[size:, 3 * size :]  # layer 2, head 4
    np.testing.assert_allclose(corner, 100 * attention.weights[1, 3], atol=0.5)
    assert centres.customdata[7][:2].tolist() == [2, 4]
    assert figure.layout.hoverdistance == -1  # a click far from the centre counts
    table = attention_figures.attention_wall_table(attention)
    np.testing.assert_allclose(table[["own item", "other items", "prefix"]].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(centres.customdata[7][2:], 100 * attention.head_shares[1, 3], atol=1e-4)


def test_one_head_begins_with_the_words_of_a_pair(attention: Attention):
    figure = attention_figures.attention_figure(attention, 0, pair=(3, 1))
    looks, looked_at = (np.flatnonzero(attention.tokens.span == span) for span in (2, 0))
    assert figure.layout.yaxis.range == (looks[-1] + 0.5, looks[0] - 0.5)  # rows go downwards
    assert figure.layout.xaxis.range == (looked_at[0] - 0.5, looked_at[-1] + 0.5)


def test_a_cell_of_items_is_known_by_its_number(attention: Attention, titles: list[str]):
    heatmap, cells = attention_figures.item_attention_figure(attention, titles, 0).data
    for number, (row, column) in enumerate(np.ndindex(heatmap.z.shape)):
        assert (cells.y[number], cells.x[number]) == (row, column)
        assert cells.customdata[number][2] == heatmap.z[row, column]


def test_item_pictures_sum_to_one(attention: Attention, titles: list[str]):
    heatmap = attention_figures.item_attention_figure(attention, titles, 0).data[0]
    np.testing.assert_allclose(heatmap.z.sum(axis=1), 1, atol=1e-5)
    table = attention_figures.item_attention_table(attention, titles)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-5)
    assert list(table.columns) == ["0 prefix", f"1 {titles[13]}", "2 An Unseen Film", f"3 {titles[5]}"]
    with pytest.raises(ConfigError, match="between 0 and 1; got 5"):
        attention_figures.item_attention_table(attention, titles, 5)


def test_shares_figure_stacks_to_a_hundred(attention: Attention):
    figure = attention_figures.attention_shares_figure(attention)
    *bars, points = figure.data
    np.testing.assert_allclose(np.sum([bar.y for bar in bars], axis=0), 100, atol=1e-3)
    table = attention_figures.attention_shares_table(attention)
    np.testing.assert_allclose(points.y, 100 * table["intra-item"], atol=1e-4)
    np.testing.assert_allclose(table["own item"], attention.shares[:, 0])
    assert table["layer"].tolist() == [1, 2]


def test_mask_figure_tells_back_from_ahead():
    tokens = WindowTokens(("[BOS]", "a", "b"), np.array([-1, 0, 0]), np.array([0, 1, 1]), (3,), 0)
    mask = np.array([[1, 0, 0], [1, 1, 1], [1, 1, 1]], bool)
    heatmap = attention_figures.mask_figure(tokens, mask, "context").data[0]
    np.testing.assert_array_equal(heatmap.z, [[0, np.nan, np.nan], [0, 0, 1], [0, 0, 0]])
    table = attention_figures.mask_table(tokens, mask)
    assert table.loc["1 a"].tolist() == [True, True, True]


def test_tokens_have_the_colour_of_their_item(titles: list[str]):
    tokens = WindowTokens(("[BOS]", "a", "b"), np.array([-1, 0, 1]), np.array([0, 1, 1]), (3, "New"), 0)
    table = attention_figures.tokens_table(tokens, titles)
    assert table["item"].tolist() == ["prefix", titles[3], "New"]
    assert table["color"].tolist() == [item_color(-1), ITEM_COLORS[0], ITEM_COLORS[1]]


def test_hidden_words_attention_sums_to_one_in_the_figure(hidden: HiddenWords):
    word = hidden.hidden[0]
    for reading in ("context", "causal"):
        heatmap = attention_figures.hidden_word_attention_figure(word, hidden.tokens, reading).data[0]
        np.testing.assert_allclose(np.nansum(heatmap.z, axis=1), 1, atol=1e-5)
        heatmap = attention_figures.hidden_word_attention_figure(word, hidden.tokens, reading, 3).data[0]
        np.testing.assert_array_equal(np.nan_to_num(heatmap.z), getattr(word, reading).attention[:, 3])
    figure = attention_figures.hidden_word_attention_figure(word, hidden.tokens, head=3)
    assert figure.layout.yaxis.title.text == "layer, head 4"
    with pytest.raises(ConfigError, match="between 0 and 3; got 4"):
        attention_figures.hidden_word_attention_table(word, hidden.tokens, head=4)
    with pytest.raises(ConfigError, match="context or causal; got 'both'"):
        attention_figures.hidden_word_attention_table(word, hidden.tokens, "both")


def test_expected_words_come_with_the_true_one(hidden: HiddenWords):
    word = hidden.hidden[0]
    table = expected_words_table(word)
    for reading in (word.context, word.causal):
        rows = table[table["reading"].str.startswith(reading.reading)]
        np.testing.assert_allclose(rows["probability"][:3], reading.probabilities)
        true = rows[rows["rank"] == reading.true_rank].iloc[0]
        assert (true["word"], true["probability"]) == (word.word, reading.true_probability)
    figure = expected_words_figure(word)
    np.testing.assert_allclose(figure.data[1].x, 100 * word.causal.probabilities)
    above, below = figure.layout.yaxis.domain, figure.layout.yaxis2.domain  # side by side their words would meet
    assert above[0] > below[1] + 0.1
    assert figure.layout.xaxis.matches == "x2"


def test_effects_come_newest_first_with_total_and_remainder(titles: list[str]):
    table = effects_table(EFFECTS, titles)
    assert table["entry"].tolist() == [titles[5], "An Unseen Film", titles[13], TOTAL, REMAINDER]
    np.testing.assert_array_equal(table["effect"], [-0.25, np.nan, 0.5, 0.75, np.nan])
    bars = effects_figure(EFFECTS, titles).data[0]
    np.testing.assert_array_equal(bars.x, table["effect"])
    assert (bars.marker.color[0], bars.marker.color[2]) == (NEGATIVE, POSITIVE)
    assert bars.y[0].startswith("3 ")
    known = HistoryEffects(EFFECTS.entries, 7, np.array([0.5, 0.125, -0.25]), -2.0, 0.75)
    assert effects_table(known, titles)["effect"].tolist()[-2:] == [0.75, 0.125]  # the newest one's is not in the sum


def test_rank_changes_leave_what_has_no_rank_empty(titles: list[str]):
    items, before, after = np.array([13, 2, 3]), np.array([4, 0, 2]), np.array([1, 2, 3])
    table = rank_changes_table(items, before, after, titles)
    assert table["rises"].fillna(-99).tolist() == [3, -99, -1]
    assert table["before"].isna().tolist() == [False, True, False]
    *lines, _ = rank_changes_figure(items, before, after, titles).data
    assert [tuple(line.y) for line in lines] == [(4, 1), (None, 2), (2, 3)]
    assert [line.line.color for line in lines[::2]] == [POSITIVE, NEGATIVE]


def test_names_beside_ranks_stand_at_their_dots_and_keep_apart(titles: list[str]):
    before, after = np.array([1, 2, 3, 4, 60, 0]), np.array([1, 300, 302, 301, 2, 3])
    figure = rank_changes_figure(np.arange(6), before, after, titles)
    *lines, _ = figure.data
    row = (figure.layout.height - 130) / (figure.layout.yaxis.range[0] - figure.layout.yaxis.range[1])
    for side, (axis, ranks) in enumerate(((figure.layout.yaxis, before), (figure.layout.yaxis2, after))):
        dots = [line.y[side] for line in lines if line.y[side] is not None]
        assert dots == list(axis.tickvals)
        assert [int(text.split()[0]) for text in axis.ticktext] == ranks[ranks > 0].tolist()
        assert np.diff(np.sort(dots)).min() * row >= 16  # pixels, for letters of 12
        assert [dots[place] for place in np.argsort(ranks[ranks > 0])] == sorted(dots)
        assert axis.automargin
    assert figure.layout.yaxis2.range == figure.layout.yaxis.range
    dotted = [shape.y0 for shape in figure.layout.shapes]  # from 4 to 60, and from there to 300
    assert dotted == [4.5, 5.5]


def test_score_terms_are_drawn_with_their_sum(titles: list[str]):
    *bars, total = score_terms_figure(BREAKDOWN, titles).data
    assert [bar.name for bar in bars] == ["text", "collaborative", "CF model's own", "what often follows"]
    np.testing.assert_allclose(np.sum([bar.x for bar in bars], axis=0), total.x)
    table = score_terms_table(BREAKDOWN, titles)
    np.testing.assert_allclose(table.iloc[:, 3:8].sum(axis=1), table["score"])
    assert table["rank, CF off"].tolist() == [4, 1]


def test_order_strip_has_a_dot_a_shuffle_and_item(titles: list[str]):
    dots, given = order_figure(ORDER, titles).data
    assert [(y[0], int(x)) for x, y in zip(dots.x, dots.y, strict=True)] == [("1", 3), ("1", 1), ("2", 5), ("2", 9)]
    assert list(given.x) == [3, 5]
    table = order_table(ORDER, titles)
    assert table[["median shuffled", "best shuffled", "worst shuffled", "median change"]].to_numpy().tolist() == [
        [2, 1, 3, -1],
        [7, 5, 9, 2],
    ]
    dot = order_drop_figure(DROPS).data[0]
    np.testing.assert_allclose([dot.x[0], dot.error_x.array[0], dot.error_x.arrayminus[0]], [0.1, 0.1, 0.05])
    assert order_drop_table(DROPS)["model"].tolist() == ["DARec"]


def test_averages_have_a_line_a_slice_and_column():
    figure = averages_figure({"cold": AVERAGE, "rest": AVERAGE}, "Attention", "share")
    assert [trace.name for trace in figure.data][:3] == [
        "own, cold (n = 2)",
        "other, cold (n = 2)",
        "own, rest (n = 2)",
    ]
    np.testing.assert_allclose(figure.data[0].y, [0.3, 0.5])
    table = averages_table({"cold": TERMS})
    assert table["mean"].tolist() == [2, 2]
    assert table["low"].tolist() == [1, 2]
    np.testing.assert_allclose(averages_figure({"cold": TERMS}, "", "").data[0].error_y.arrayminus, [1, 0])


def test_averages_leave_terms_that_say_nothing_of_anybody_to_the_table():
    names = ("text", "followed", "late")
    values = {"cold": np.array([[[1.0, 0.0, 0.0]]]), "rest": np.array([[[1.0, 0.0, 2.0]]])}
    slices = {name: UserAverage(names, part, 1) for name, part in values.items()}
    assert averages_table(slices)["column"].tolist() == ["text", "what often follows", "CF model's own"] * 2
    for trace in averages_figure(slices, "", "").data:
        assert list(trace.x) == ["text", "CF model's own"]


def test_training_curves_show_every_stage_over_the_time_it_took():
    table = training_curves_table(EVENTS)
    figure = training_curves_figure(table)
    assert {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data} == {
        "weighted sum of all": ([2.5, 3.0], [3.0, 2.5]),
        "next item": ([2.5, 3.0], [2.0, 1.5]),
        "CF model alone": ([2.0], [0.1]),
        "DARec": ([3.0], [0.25]),
    }
    assert table["step"].dropna().tolist() == [1, 2, 2]
    assert len(training_curves_figure(training_curves_table([])).data) == 0


def test_no_two_training_curves_look_alike():
    names = ("loss", "next_item", "next_item_without_late", "collaborative", "title", "mask", "balance")
    losses = {"stage": "training", "epoch": 1, "step": 1, **dict.fromkeys(names, 1.0)}
    ranks = {"stage": "validation", "epoch": 1, "step": 1, "ndcg@10": 0.5, "ndcg@10_cf_off": 0.25}
    before = [{"stage": stage, "epoch": 1, "loss": 5.0, "ndcg@10": 0.1} for stage in ("collaborative", "short way")]
    figure = training_curves_figure(training_curves_table([*before, losses, ranks]))
    assert len(figure.data) == len({(trace.line.color, trace.line.dash) for trace in figure.data}) == 11


def test_weights_are_counted_at_their_nearest_level():
    # over their blocks' largest: 1, -1, .45, .55 | 0, 0, 0, 0 | 1, .2, -.2, 0
    table = four_bit_weights_table(WEIGHTS, LEVELS, block=4)
    levels, bins = table[table["what"] == "level"], table[table["what"] == "bar"]
    assert levels["weights"].tolist() == [1, 8, 3]
    assert [part["share"].sum() for part in (levels, bins)] == pytest.approx([1, 1])
    np.testing.assert_allclose(levels["mean move"], [0, 0.85 / 8, 0.45 / 3])
    assert bins.loc[bins["weights"] > 0, "weights"].tolist() == [1, 1, 5, 1, 1, 1, 2]
    bars, _, dots = four_bit_weights_figure(WEIGHTS, LEVELS, block=4).data
    np.testing.assert_allclose(bars.y, 100 * bins["share"])
    np.testing.assert_allclose(bars.x, bins["at"])
    np.testing.assert_allclose(dots.y, 100 * levels["share"])
    with pytest.raises(DataError, match="one whole block of 64; got 12 weights"):
        four_bit_weights_table(WEIGHTS, LEVELS)


def test_popularity_falls_and_adds_up(titles: list[str]):
    counts = np.zeros(20, int)
    counts[[3, 13]] = [2, 6]
    table = popularity_table(counts, titles)
    assert table["item"][:2].tolist() == [titles[13], titles[3]]
    assert table["cumulative share"][:3].tolist() == [0.75, 1, 1]
    assert list(popularity_figure(counts, titles).data[0].y) == [6, 2]


def test_history_lengths_cover_every_user_once():
    assert history_lengths_table([3, 4, 4]).to_numpy().tolist() == [[3, 3, 1], [4, 4, 2]]
    table = history_lengths_table([1, 2, 2, 61, 100])
    assert table["users"].sum() == 5
    assert len(table) <= 30
    assert table.iloc[0].tolist() == [1, 4, 3]
    bars = history_lengths_figure([1, 2, 2, 61, 100]).data[0]
    assert (bars.x[0], bars.customdata[0]) == (2.5, "1 to 4")  # a number: the axis need not name every range
    assert history_lengths_figure([3, 4, 4]).layout.xaxis.dtick == 1


@pytest.mark.parametrize(("last", "ticks"), [(1, [1, 2, 5]), (9, [1, 2, 5]), (10, [1, 10]), (1398, [1, 10, 100, 1000])])
def test_ranks_on_a_logarithm_are_labelled_in_full(last: int, ticks: list[int]):
    assert log_axis(last) == {"type": "log", "tickvals": ticks, "tickformat": ","}


def test_logarithmic_axes_have_labels_of_their_own(titles: list[str]):
    popularity = popularity_figure(np.arange(1, 2001), [str(item) for item in range(2000)]).layout
    ranks = wins_and_losses_figure(FIRST, SECOND, ("DARec", "SASRec")).layout
    for axis in (
        popularity.xaxis,
        popularity.yaxis,
        ranks.xaxis,
        ranks.yaxis,
        cf_ranks_figure(BREAKDOWN, titles).layout.xaxis,
    ):
        assert axis.type == "log"
        assert axis.tickvals[0] == 1
    assert list(popularity.xaxis.tickvals) == [1, 10, 100, 1000]


def test_long_names_are_broken_between_words():
    assert wrap("rank with a long name", 12) == "rank with a<br>long name"
    first, second, third = (FIRST, SECOND, ("A model with quite a long name", "B"))
    names = [trace.name for trace in wins_and_losses_figure(first, second, third).data if trace.name]
    assert max(len(line) for name in names for line in name.split("<br>")) <= 38


def test_slices_are_hollow_where_too_small():
    dots = slices_figure({"DARec": SLICES}, "history_length", "hr@10").data[0]
    assert list(dots.x) == ["1 to 5", "6 and more"]
    assert list(dots.y) == [0.5, 0.1]
    assert list(dots.marker.symbol) == ["circle", "circle-open"]
    np.testing.assert_allclose(dots.error_y.arrayminus, [0.1, 0.1])
    assert slices_table({"DARec": SLICES}, "history_length")["mean"].tolist() == [0.3, 0.05]
    with pytest.raises(DataError, match=r"no slice 'mood'\. Known: history_length"):
        slices_table({"DARec": SLICES}, "mood")


def test_wins_and_losses_are_paired_by_user():
    table = wins_and_losses_table(FIRST, SECOND, ("DARec", "SASRec"))
    assert table["outcome"].tolist() == ["DARec wins", "tie", "SASRec wins"]
    assert table["users"].tolist() == [2, 1, 1]
    assert table["median rank, SASRec"].tolist() == [6.5, 7, 1]
    wins, losses, ties, _ = wins_and_losses_figure(FIRST, SECOND, ("DARec", "SASRec")).data
    assert [list(part.text) for part in (wins, losses, ties)] == [["a", "d"], ["b"], ["c"]]
    with pytest.raises(DataError, match="they share 3 of 4 and 3"):
        wins_and_losses_table(FIRST, SECOND[:3], ("DARec", "SASRec"))


def test_text_is_shown_as_it_is_written():
    assert plain("<b> $x$ & y") == "&lt;b&gt; &#36;x&#36; &amp; y"
    assert labels(["the", "the", "a title that is longer"], width=12) == ["1 the", "2 the", "3 a title tha…"]
    assert "$" in FILMS[13][0]  # the invented film that the figures above show


def test_letters_on_a_fill_are_black_or_white_whichever_stands_out_more():
    assert [ink_on(fill) for fill in ("#FFFFFF", "#000000", "#0072B2", "#E69F00", "#CC79A7", "#8A8F91")] == [
        "black",
        "white",
        "white",
        "black",
        "black",
        "black",
    ]


def test_a_scale_of_attention_says_that_its_last_colour_stands_for_more(attention: Attention):
    heatmap = attention_figures.attention_figure(attention, 0).data[0]
    assert heatmap.zmax < heatmap.z[heatmap.z == heatmap.z].max()  # the strongest hundredth lies beyond
    assert heatmap.colorbar.tickvals[-1] == heatmap.zmax
    assert heatmap.colorbar.ticktext[-1] == f"≥ {heatmap.zmax:.2f}"
