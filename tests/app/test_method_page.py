import re
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
from invented_films import SMALL
from streamlit.testing.v1 import AppTest

from app import method_widgets, resources
from darec.config import AdapterSettings, CollaborativeSettings
from darec.explain.score_terms import explain_scores

ROOT = Path(__file__).parents[2]
PARTS = [f"{number} {part.label}" for number, part in enumerate(method_widgets.PARTS, start=1)]


@pytest.fixture
def bare_page(start_page) -> AppTest:
    """The page with a model that is no DARec."""
    return start_page("method")


@pytest.fixture
def show(start_page):
    """Shows the page with a DARec model on the same data."""
    return partial(start_page, "method")


def turn_to(page: AppTest, part: str) -> AppTest:
    page.segmented_control(key="part").set_value(part)
    page.run()
    assert not page.exception
    assert not page.error
    return page


def test_each_part_has_formulas_words_and_a_picture_with_its_numbers(show, make_model):
    page = show(make_model())
    for name, part in zip(PARTS, method_widgets.PARTS, strict=True):
        turn_to(page, name)
        assert [element.value for element in page.latex] == [
            f"$$\n{formula}\n$$" for _, formula, _ in part.formulas + part.further
        ]
        assert any(part.words in element.value for element in page.markdown)
        assert len(page.get("plotly_chart")) == 1
        assert len(page.dataframe) == 1
        assert len(page.get("download_button")) == 1


def test_the_score_terms_are_those_of_the_model(show, make_model):
    model = make_model()
    table = turn_to(show(model), PARTS[0]).dataframe[0].value
    titles = table["item"].tolist()
    catalog = resources.load_recommender(Path()).catalog
    breakdown = explain_scores(model, [0, 3, 7], [catalog.titles.index(title) for title in titles])
    assert breakdown.rank.tolist() == list(range(1, 7))
    np.testing.assert_allclose(
        table[["text", "collaborative", "prior", "CF model's own"]].to_numpy().T, breakdown.terms[:4]
    )


def test_the_causal_mask_has_no_orange_cell_and_the_context_mask_has(show, make_model):
    page = turn_to(show(make_model()), PARTS[1])
    context = page.dataframe[0].value.to_numpy(bool)
    page.segmented_control(key="method_mask").set_value("causal").run()
    causal = page.dataframe[0].value.to_numpy(bool)
    assert not np.triu(causal, 1).any()
    assert np.triu(context, 1).any()
    assert (context & ~causal == np.triu(context, 1)).all()


def test_ranks_without_cf_are_counted(show, make_model):
    model = make_model()
    page = turn_to(show(model), PARTS[2])
    table = page.dataframe[0].value
    assert table["CF on"].tolist() == list(range(1, 11))
    assert page.metric[0].value == f"{(table['CF off'] <= 10).sum()} of 10"
    assert page.metric[1].value == f"{model.late_gate.item():.2f}"


def test_the_adapters_of_every_layer_are_listed(show, make_model):
    page = turn_to(show(make_model()), PARTS[3])
    assert page.dataframe[0].value["layer"].tolist() == [1, 1, 2, 2]
    assert "every layer carries the same adapters" in page.caption[-1].value
    unlike = AdapterSettings(layers=(("lora_mlp:4",), ()), weights="static")
    page = turn_to(show(make_model(settings=SMALL.model_copy(update={"adapters": unlike}))), PARTS[3])
    assert "layers carry different adapters" in page.caption[-1].value
    assert "the same for every history" in page.caption[-1].value


def test_a_model_without_a_part_says_so(show, make_model):
    without = SMALL.model_copy(
        update={
            "collaborative": CollaborativeSettings(enabled=False, max_items=8),
            "adapters": AdapterSettings(enabled=False),
            "masking": SMALL.masking.model_copy(update={"enabled": False}),
        }
    )
    page = show(make_model(settings=without))
    assert "without context masking" in turn_to(page, PARTS[1]).warning[0].value
    assert "without collaborative knowledge" in turn_to(page, PARTS[2]).info[0].value
    assert "without adapters" in turn_to(page, PARTS[3]).info[0].value


def test_a_baseline_shows_the_formulas_and_asks_for_a_darec_model(bare_page: AppTest):
    page = turn_to(bare_page, PARTS[0])
    assert len(page.latex) == len(method_widgets.PARTS[0].formulas + method_widgets.PARTS[0].further)
    assert "Pick a DARec model" in page.info[0].value
    assert not page.get("plotly_chart")


def test_five_exercises_link_to_pages_that_exist_with_their_selection(bare_page: AppTest, film_run: Path):
    page = turn_to(bare_page, "Exercises")
    assert [element.value[:2] for element in page.subheader] == ["1.", "2.", "3.", "4.", "5."]
    links = [(link.proto.page, parse_qs(link.proto.query_string)) for link in page.page_link]
    assert all(query["run"] == [film_run.name] for _, query in links)
    (vote, voted), *links = links
    assert (vote, voted["vote"], voted["history"]) == ("", ["true"], ["f0~f3~f7"])
    assert [name for name, _ in links] == ["", "", "method", "errors", "data"]
    assert links[0][1]["history"] == ["f0~f3~f7"]
    assert links[1][1]["history"] == [".Return of Café at the Border"]
    assert links[2][1]["part"] == [PARTS[1]]


def test_the_context_masks_gain_is_what_exercise_three_asks_for(show, make_model):
    # Within an item of m words, the words may look ahead at m (m - 1) / 2 of the others.
    page = turn_to(show(make_model()), PARTS[1])
    table = page.dataframe[0].value
    words = [int(not re.search(r"\[(BOS|USER|ITEM)\]", name)) for name in table.columns]
    runs = [len(run) for run in "".join(map(str, words)).split("0") if run]
    assert np.triu(table.to_numpy(bool), 1).sum() == sum(m * (m - 1) // 2 for m in runs)


def test_what_is_the_papers_and_what_is_ours_is_said(bare_page: AppTest):
    page = turn_to(bare_page, "Assumptions")
    text = " ".join(element.value for element in page.markdown)
    assert "Only its abstract was public to us" in text
    assert "2408.07427" in text
