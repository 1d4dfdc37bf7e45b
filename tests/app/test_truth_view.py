"""The view of what a simulated viewer truly likes, on a small world of the demo's kind."""

import sys
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import resources
from app.widgets import literal
from darec.data.demo.truth import Truth
from darec.data.demo.world import Rules, make_world
from darec.data.interactions import validated
from darec.serving import Recommender

ENTRY = Path(__file__).parents[2] / "streamlit_app.py"


class Backwards:
    """Likes films the more, the later they stand in the catalogue."""

    def score(self, histories):
        return np.tile(np.arange(self.items, dtype=float), (len(histories), 1))

    def __init__(self, items: int):
        self.items = items


@pytest.fixture(scope="module")
def world():
    return make_world(5, Rules(viewers=60))


@pytest.fixture
def open_link(world, film_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    dataset, truth = validated(world.interactions, world.items, "demo"), Truth.of(world)
    info = {"name": "Backwards", "kind": "baseline", "data_fingerprint": "of the world"}
    recommender = Recommender(info, dataset, Backwards(len(dataset.catalog)), reads_text=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py", "--run", str(film_run)])
    monkeypatch.setattr(resources, "load_recommender", lambda run: recommender)
    monkeypatch.setattr(resources, "load_truth", lambda run: truth)

    def open_address(simulated: bool = True, **query: str) -> tuple[AppTest, Recommender, Truth]:
        monkeypatch.setattr(resources, "is_simulated", lambda recommender: simulated)
        app = AppTest.from_file(str(ENTRY), default_timeout=30)
        for name, value in query.items():
            app.query_params[name] = value
        return app.run(), recommender, truth

    return open_address


def test_tastes_and_both_lists_are_shown(open_link):
    app, recommender, truth = open_link(user="viewer-0004", panel="Truth")
    assert not app.exception
    told = next(text.value for text in app.markdown if text.value.startswith("This simulated viewer"))
    assert all(f"- {literal(part)}" in told for part in truth.describe_tastes("viewer-0004").split("; "))
    (table,) = [frame.value for frame in app.dataframe if "believed" in frame.value]
    position = len(truth.choices_of("viewer-0004")) - 1
    likeliest = int(truth.true_probabilities("viewer-0004", position).argmax())
    first = table.iloc[0]
    assert table.index[0] == recommender.catalog.titles[likeliest]
    assert (first["true_rank"], first["true"]) == (
        1,
        truth.true_probabilities("viewer-0004", position)[likeliest],
    )
    last_unseen = max(set(range(len(recommender.catalog))) - set(truth.choices_of("viewer-0004")[:position]))
    assert table.loc[recommender.catalog.titles[last_unseen], "believed_rank"] == 1


@pytest.mark.parametrize(
    ("simulated", "query"),
    [(False, {"user": "viewer-0004"}), (True, {"user": "viewer-0004", "history": "another"})],
)
def test_it_is_offered_for_a_simulated_viewers_own_history_alone(open_link, world, simulated: bool, query):
    if "history" in query:
        query = {**query, "history": str(world.items["item_id"].iat[3])}
    app, _, _ = open_link(simulated, panel="Truth", **query)
    assert not app.exception
    assert not [frame for frame in app.dataframe if "believed" in frame.value]
