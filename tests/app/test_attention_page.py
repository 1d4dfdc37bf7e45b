from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from invented_films import SMALL
from streamlit.testing.v1 import AppTest

from app import attention_widgets, resources
from darec.explain.attention import SHARES, draw_mask, explain_attention
from darec.explain.masked_tokens import hide_words
from darec.export import to_csv
from darec.figures.attention import attention_table, mask_table

ROOT = Path(__file__).parents[2]
HISTORY = [0, 3, 7]


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


@pytest.fixture
def bare_page(start_page) -> AppTest:
    """The page with a model that is no DARec."""
    return start_page("attention")


@pytest.fixture
def show(start_page):
    """Shows the page with a DARec model on the same data."""
    return partial(start_page, "attention")


def run(page: AppTest) -> AppTest:
    page.run()
    assert not page.exception
    assert not page.error
    return page


def turn_to(page: AppTest, view: str, mask: str | None = None) -> AppTest:
    page.segmented_control(key="attention_view").set_value(view)
    run(page)
    if mask:
        page.segmented_control(key="attention_mask").set_value(mask)
        run(page)
    return page


def open_numbers(page: AppTest, name: str) -> AppTest:
    page.session_state[f"numbers-{name}"] = True
    return run(page)


def tables(page: AppTest):
    return [element.value for element in page.dataframe]


def test_it_opens_on_a_hidden_word_with_both_readings_by_their_names(show, model):
    page = show(model)
    tokens, _ = draw_mask(model, HISTORY, "context")
    newest = [position for position in tokens.words().tolist() if tokens.span[position] == 2]
    longest = max(newest, key=lambda position: len(tokens.texts[position]))
    expected = tables(page)[0]
    hidden = hide_words(model, HISTORY, [longest]).hidden[0]
    for name, reading in (("context mask", hidden.context), ("causal mask", hidden.causal)):
        own = expected[expected["reading"].str.startswith(name)]
        np.testing.assert_allclose(own["probability"].to_numpy()[:5], reading.probabilities)
    assert any("Green marks the true word" in caption.value for caption in page.caption)
    said = " ".join(element.value for element in page.markdown)
    assert "**Context mask.**" in said
    assert "**Causal mask.**" in said


def test_a_hidden_places_attention_sums_to_1_in_every_layer_under_either_reading(show, model):
    page = show(model)
    page.segmented_control(key="hiding").set_value("Looks at")
    run(page)
    assert len(tables(page)) == 2
    for table in tables(page):
        np.testing.assert_allclose(table.filter(like="layer").sum(), 1, atol=1e-5)


def test_a_hidden_place_looks_with_one_head_which_the_link_names(show, model):
    page = show(model)
    position = page.button_group(key="words of 2").value[0]
    word = hide_words(model, HISTORY, [position]).hidden[0]
    page.segmented_control(key="hiding").set_value("Looks at")
    layers = ["layer 1", "layer 2"]
    for head, weights in (
        (None, lambda attention: attention.mean(axis=1)),
        ("2", lambda attention: attention[:, 1]),
    ):
        if head:
            page.selectbox(key="head").set_value(head)
        for table, reading in zip(tables(run(page)), (word.context, word.causal), strict=True):
            np.testing.assert_allclose(table[layers].T, weights(reading.attention), atol=1e-6)
    linked = show(model)
    linked.query_params["head"] = "2"
    linked.segmented_control(key="hiding").set_value("Looks at")
    assert all(table.equals(own) for table, own in zip(tables(run(linked)), tables(page), strict=True))


def test_where_no_word_is_hidden_it_says_so_as_long_as_words_are(show, model):
    page = show(model)
    for view in ("One head", "All heads", "Items", "Shares"):
        said = [caption.value for caption in turn_to(page, view).caption]
        assert len([line for line in said if "Every word is read here" in line]) == 1
    page.query_params["hidden"] = ""
    assert not any("Every word is read here" in caption.value for caption in run(page).caption)


def test_clicked_words_are_hidden_change_the_predictions_and_stand_in_the_link(show, model):
    page = show(model)
    tokens, _ = draw_mask(model, HISTORY, "context")
    words = tokens.words()
    page.button_group(key="words of 0").set_value(words[tokens.span[words] == 0].tolist())
    run(page)
    positions = [int(place) for place in page.query_params["hidden"].split(".")]
    assert len(positions) == (tokens.span[words] == 0).sum() + 1  # the example stays hidden
    result = hide_words(model, HISTORY, positions)
    assert result.hidden[-1].position == positions[-1]
    page.segmented_control(key="hiding").set_value("Changes ranks")
    run(page)
    changed = tables(page)[0].dropna()
    assert changed["before"].tolist()[:10] == list(range(1, 11))
    titles = resources.load_recommender(Path()).catalog.titles
    assert changed["after"].tolist() == [
        int(result.ranks_after[titles.index(title.removeprefix("★ "))]) for title in changed["item"]
    ]
    assert (changed["before"] != changed["after"]).any()
    page.segmented_control(key="hiding").set_value("Expected there")
    run(page)
    page.segmented_control[-1].set_value(positions[0])
    run(page)
    at_first = tables(page)[0]
    np.testing.assert_allclose(at_first["probability"].iloc[0], result.hidden[0].context.probabilities[0])
    linked = show(model)
    for name in ("hidden", "looked_at"):
        linked.query_params[name] = page.query_params[name]
    assert tables(run(linked))[0].equals(at_first)


def test_words_are_shown_again(show, model):
    page = show(model)
    next(button for button in page.button if button.label == "Show all words").click()
    run(page)
    assert page.query_params["hidden"] == ""
    assert "No word is hidden" in page.info[0].value
    assert not page.dataframe


def test_a_link_hides_its_words_and_what_holds_no_word_is_passed_over(show, model):
    page = show(model)
    words = draw_mask(model, HISTORY, "context")[0].words().tolist()
    page.query_params["hidden"] = f"{words[0]}.0.999.x"
    run(page)
    hidden = hide_words(model, HISTORY, words[:1]).hidden[0]
    np.testing.assert_allclose(tables(page)[0]["probability"].iloc[0], hidden.context.probabilities[0])
    assert page.button_group(key="words of 0").value == words[:1]
    assert page.button_group(key="words of 2").value == []


def test_another_history_hides_its_own_example(show, model):
    page = show(model)
    words = draw_mask(model, HISTORY, "context")[0].words().tolist()
    page.query_params["hidden"] = str(words[0])
    run(page)
    next(button for button in page.button if button.key == "remove-0").click()  # the oldest item
    run(page)
    assert "hidden" not in page.query_params
    assert page.button_group(key="words of 1").value  # of the newest item, as where no link hides a word


def test_a_link_says_which_hidden_word_is_looked_at_whatever_was_before(show, model):
    page = show(model)
    words = draw_mask(model, HISTORY, "context")[0].words().tolist()
    page.query_params.update(hidden=f"{words[0]}.{words[1]}", looked_at=str(words[0]))
    run(page)
    page.segmented_control[-1].set_value(words[1])
    run(page)
    assert page.query_params["looked_at"] == str(words[1])
    page.query_params["looked_at"] = str(words[0])  # one step back
    assert run(page).segmented_control[-1].value == words[0]


def test_one_head_is_that_of_the_model_and_its_rows_sum_to_1(show, model):
    page = turn_to(show(model), "One head")
    page.selectbox(key="layer").set_value(1)
    page.selectbox(key="head").set_value("2")
    open_numbers(page, "attention")
    table = tables(page)[0]
    attention = explain_attention(model, HISTORY, "context")
    shown = attention.weights[0, 1][attention.mask][: len(table)]  # the page lists the first rows, the CSV has all
    np.testing.assert_allclose(table["weight"], shown, atol=1e-6)
    complete = table[table["from position"] < table["from position"].max()]
    np.testing.assert_allclose(complete.groupby("from position")["weight"].sum(), 1, atol=1e-5)
    shown = [int(metric.value.removesuffix(" %")) for metric in page.metric]
    assert shown == [round(100 * float(share)) for share in attention.head_shares[0, 1]]


def test_a_closed_fold_makes_no_table_of_a_long_window_and_an_open_one_has_all(show, make_model, monkeypatch):
    sequence = SMALL.sequence.model_copy(update={"max_items": 60, "max_text_tokens": 14})
    model = make_model(settings=SMALL.model_copy(update={"sequence": sequence}))
    model.windows = replace(model.windows, max_tokens=1024)
    history = [f"A title without end, told over and over again, number {number}" for number in range(42)]
    tokens, allowed = draw_mask(model, history, "context")
    assert len(tokens.texts) > 600
    for view, name, table in (
        ("One head", "attention", attention_table(explain_attention(model, history), 1)),
        ("Mask", "mask", mask_table(tokens, allowed)),
    ):
        make, save = Mock(return_value=table), Mock(wraps=to_csv)
        monkeypatch.setattr(attention_widgets, f"{name}_table", make)
        page = turn_to(show(model, history="~".join(f".{title}" for title in history)), view)
        assert not page.dataframe
        assert not page.get("download_button")
        assert not make.called
        monkeypatch.setattr("app.charts.to_csv", save)
        open_numbers(page, name)
        assert make.call_count == save.call_count == 1
        assert tables(page)[0].equals(table.head(500))
        assert len(save.call_args.args[0]) == len(table)  # the CSV has all


@pytest.mark.parametrize("mask", ["context", "causal"])
def test_shares_of_own_and_other_items_sum_to_1_under_either_mask(show, model, mask: str):
    page = turn_to(show(model), "Shares", mask)
    shares = tables(page)[0].set_index("layer")
    with_prefix, among_items = shares[list(SHARES)], shares[["intra-item", "inter-item"]]
    np.testing.assert_allclose(with_prefix, explain_attention(model, HISTORY, mask).shares, atol=1e-6)
    np.testing.assert_allclose(with_prefix.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(among_items.sum(axis=1), 1, atol=1e-5)
    turn_to(page, "Items")
    np.testing.assert_allclose(tables(page)[0].sum(axis=1), 1, atol=1e-5)


def test_one_head_shows_the_words_of_the_pair_that_a_link_names(show, model):
    page = turn_to(show(model), "One head")
    assert not any("looks at" in element.value for element in page.markdown)
    page.query_params["pair"] = "2.1"
    assert len([element for element in run(page).markdown if " looks at **" in element.value]) == 1
    for nonsense in ("2", "9.1", "-1.0", "a.b", "1.2.3"):
        page.query_params["pair"] = nonsense
        assert not any("looks at" in element.value for element in run(page).markdown)


def test_a_pair_of_items_is_chosen_from_a_menu_that_follows_the_link(show, model):
    page = turn_to(show(model), "Items")
    attention = explain_attention(model, HISTORY, "context")
    menu = page.selectbox(key="pair_of_items")
    assert menu.value is None
    assert len(menu.options) == np.count_nonzero(attention.items.any(axis=0))  # where one may look
    page.selectbox(key="item_layer").set_value("1").run()
    page.selectbox(key="pair_of_items").set_value((3, 1))
    run(page)
    assert page.segmented_control(key="attention_view").value == "One head"
    assert (page.query_params["pair"], page.query_params["layer"]) == ("3.1", "1")
    oldest, newest = tables(turn_to(page, "Items"))[0].columns[[1, 3]]
    assert page.selectbox(key="pair_of_items").value == (3, 1)
    assert f"{newest} looks at {oldest}" in menu.options
    page.query_params["pair"] = "2.1"
    assert run(page).selectbox(key="pair_of_items").value == (2, 1)
    page.query_params["pair"] = "1.2"  # an item that comes later
    assert run(page).selectbox(key="pair_of_items").value is None


def test_all_heads_are_listed(show, model):
    page = turn_to(show(model), "All heads")
    table = tables(page)[0]
    assert len(table) == model.backbone.config.num_hidden_layers * model.backbone.config.num_attention_heads
    np.testing.assert_allclose(table[["own item", "other items", "prefix"]].sum(axis=1), 1, atol=1e-5)


def test_the_mask_is_drawn_and_the_models_own_is_named(show, model):
    page = open_numbers(turn_to(show(model), "Mask"), "mask")
    assert np.triu(tables(page)[0].to_numpy(bool), 1).any()
    assert any("So this model reads" in caption.value for caption in page.caption)
    turn_to(page, "Mask", "causal")
    assert not np.triu(tables(page)[0].to_numpy(bool), 1).any()
    assert any("under the context mask" in caption.value for caption in page.caption)


def test_a_reading_that_was_never_trained_is_said_to_be(show, make_model):
    masking = SMALL.masking.model_copy(update={"enabled": False})
    page = show(make_model(settings=SMALL.model_copy(update={"masking": masking})))
    untrained = [element.value for element in page.markdown if "Not a part of this model's training" in element.value]
    assert len(untrained) == 1
    assert untrained[0].startswith("**Context mask.**")


def test_without_a_darec_model_or_a_history_it_says_what_to_do(bare_page: AppTest, show, model):
    assert "Pick a DARec model" in bare_page.info[0].value
    page = show(model, history="")
    assert "Add a title under History" in page.info[0].value


def test_a_history_is_changed_in_place(show, model):
    page = show(model)
    page.button(key="remove-0").click()
    run(page)
    assert page.query_params["history"] == "f3~f7"
    tokens, _ = draw_mask(model, HISTORY[1:], "context")
    words = tokens.words()
    for span in (0, 1):
        shown = page.button_group(key=f"words of {span}").options
        assert len(shown) == (tokens.span[words] == span).sum()
