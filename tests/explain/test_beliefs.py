"""Beliefs against the truth of a small world of simulated viewers."""

from pathlib import Path

import numpy as np
import pytest

from darec.data.demo.truth import Oracle, Truth, save_truth
from darec.data.demo.world import Rules, make_world
from darec.data.interactions import Dataset, validated
from darec.errors import DataError
from darec.explain.beliefs import compare_beliefs
from darec.serving import Recommender


class Knowing:
    """Scores as the oracle does, on the scale that a softmax undoes."""

    def __init__(self, truth: Truth):
        self.oracle = Oracle(truth)

    def score(self, histories):
        return np.log(np.maximum(self.oracle.score(histories), 1e-30))


class Level:
    """Likes everything alike."""

    def __init__(self, items: int):
        self.items = items

    def score(self, histories):
        return np.zeros((len(histories), self.items))


@pytest.fixture(scope="module")
def world():
    return make_world(5, Rules(viewers=60))


@pytest.fixture(scope="module")
def truth(world) -> Truth:
    return Truth.of(world)


@pytest.fixture(scope="module")
def dataset(world) -> Dataset:
    return validated(world.interactions, world.items, "demo")


def test_who_knows_the_truth_agrees_with_it(truth: Truth, dataset: Dataset):
    recommender = Recommender({"name": "knowing"}, dataset, Knowing(truth), reads_text=False)
    user_id = truth.user_ids[7]
    found = compare_beliefs(recommender, truth, user_id, 5, leading=4)
    assert found.agreed == 10
    assert found.tastes == truth.describe_tastes(user_id)
    np.testing.assert_allclose(found.table["believed"], found.table["true"], atol=1e-9)
    assert found.table["true_rank"].tolist() == found.table["believed_rank"].tolist() == [1, 2, 3, 4]
    assert found.table["true"].is_monotonic_decreasing
    assert found.table["title"].tolist() == [dataset.catalog.titles[item] for item in found.table["item"]]
    assert not set(found.table["item"]) & set(truth.choices_of(user_id)[:5])


def test_who_believes_nothing_has_every_rank_last(truth: Truth, dataset: Dataset):
    recommender = Recommender({"name": "level"}, dataset, Level(len(dataset.catalog)), reads_text=False)
    found = compare_beliefs(recommender, truth, truth.user_ids[7], 5, leading=4)
    assert found.agreed == 0
    assert found.table["true_rank"].tolist() == [1, 2, 3, 4]
    assert set(found.table["believed_rank"]) == {len(dataset.catalog) - 5}
    assert found.table["believed"].unique() == pytest.approx(1 / (len(dataset.catalog) - 5))


@pytest.mark.parametrize(
    ("user_id", "position", "message"),
    [("nobody", 5, "nobody"), ("viewer-0003", 0, "at least one"), ("viewer-0003", 900, "got position 900")],
)
def test_what_never_was_is_refused(truth: Truth, dataset: Dataset, user_id: str, position: int, message: str):
    recommender = Recommender({"name": "knowing"}, dataset, Knowing(truth), reads_text=False)
    with pytest.raises(DataError, match=message):
        compare_beliefs(recommender, truth, user_id, position)


def test_the_truth_may_lie_apart_from_the_pair(world, truth: Truth, dataset: Dataset, tmp_path: Path):
    (tmp_path / "truth").mkdir()
    (tmp_path / "pair").mkdir()
    save_truth(world, tmp_path / "truth")
    dataset.save(tmp_path / "pair")
    loaded = Truth.load(tmp_path / "truth", tmp_path / "pair")
    user_id = truth.user_ids[3]
    np.testing.assert_array_equal(loaded.true_probabilities(user_id, 4), truth.true_probabilities(user_id, 4))
