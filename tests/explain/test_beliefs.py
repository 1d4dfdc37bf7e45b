"""Beliefs against the truth of a small world of simulated viewers."""

from pathlib import Path

import numpy as np
import pytest

from darec.data.demo.truth import Truth, save_truth
from darec.data.demo.world import Rules, make_world
from darec.data.interactions import Dataset, validated
from darec.errors import DataError
from darec.explain.beliefs import compare_beliefs


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
    user_id = truth.user_ids[7]
    found = compare_beliefs(truth.true_probabilities(user_id, 5), dataset.catalog.titles, truth, user_id, 5, leading=4)
    assert found.agreed == 10
    assert found.tastes == truth.describe_tastes(user_id)
    np.testing.assert_allclose(found.table["believed"], found.table["true"], atol=1e-9)
    assert found.table["true_rank"].tolist() == found.table["believed_rank"].tolist() == [1, 2, 3, 4]
    assert found.table["true"].is_monotonic_decreasing
    assert found.table["title"].tolist() == [dataset.catalog.titles[item] for item in found.table["item"]]
    assert not set(found.table["item"]) & set(truth.choices_of(user_id)[:5])


def test_who_believes_nothing_has_every_rank_last(truth: Truth, dataset: Dataset):
    level = np.full(len(dataset.catalog), 1 / (len(dataset.catalog) - 5))
    level[truth.choices_of(truth.user_ids[7])[:5]] = np.nan
    found = compare_beliefs(level, dataset.catalog.titles, truth, truth.user_ids[7], 5, leading=4)
    assert found.agreed == 0
    assert found.table["true_rank"].tolist() == [1, 2, 3, 4]
    assert set(found.table["believed_rank"]) == {len(dataset.catalog) - 5}
    assert found.table["believed"].unique() == pytest.approx(1 / (len(dataset.catalog) - 5))


@pytest.mark.parametrize(
    ("user_id", "position", "message"),
    [("nobody", 5, "nobody"), ("viewer-0003", 900, "got position 900")],
)
def test_what_never_was_is_refused(truth: Truth, dataset: Dataset, user_id: str, position: int, message: str):
    level = np.ones(len(dataset.catalog))
    with pytest.raises(DataError, match=message):
        compare_beliefs(level, dataset.catalog.titles, truth, user_id, position)


def test_the_truth_may_lie_apart_from_the_pair(world, truth: Truth, dataset: Dataset, tmp_path: Path):
    (tmp_path / "truth").mkdir()
    (tmp_path / "pair").mkdir()
    save_truth(world, tmp_path / "truth")
    dataset.save(tmp_path / "pair")
    loaded = Truth.load(tmp_path / "truth", tmp_path / "pair")
    user_id = truth.user_ids[3]
    np.testing.assert_array_equal(loaded.true_probabilities(user_id, 4), truth.true_probabilities(user_id, 4))
