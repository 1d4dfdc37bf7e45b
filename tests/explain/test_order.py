from collections.abc import Callable

import numpy as np
import pytest

from darec.errors import DataError
from darec.explain.order import shuffle_history
from darec.explain.scoring import ranks_among
from darec.model.recommender import DarecModel

HISTORY = [3, "An Unseen Film", 5, 9]


@pytest.fixture(scope="module")
def model(make_model: Callable[..., DarecModel]) -> DarecModel:
    return make_model()


def test_every_item_is_ranked_under_the_same_seeded_shuffles(model: DarecModel):
    found = shuffle_history(model, HISTORY, [1, 12], shuffles=5, seed=3, batch_size=2)
    candidates = np.ones(20, bool)
    candidates[[3, 5, 9]] = False
    assert found.shuffled.shape == (5, 2)
    assert (np.sort(found.permutations) == np.arange(4)).all()
    assert len({tuple(order) for order in found.permutations.tolist()}) > 1
    for order, ranks in zip(found.permutations, found.shuffled, strict=True):
        scores = model.score([[HISTORY[place] for place in order]])[0]
        np.testing.assert_array_equal(ranks, ranks_among(scores, candidates)[[1, 12]])
    np.testing.assert_array_equal(found.rank, ranks_among(model.score([HISTORY])[0], candidates)[[1, 12]])
    np.testing.assert_array_equal(found.median_change(), np.median(found.shuffled, axis=0) - found.rank)
    again = shuffle_history(model, HISTORY, [1, 12], shuffles=5, seed=3)
    np.testing.assert_array_equal(again.shuffled, found.shuffled)


def test_history_of_one_item_again_and_again_has_no_order(model: DarecModel):
    found = shuffle_history(model, [3, 3, 3], list(range(4, 9)), shuffles=4)
    assert (found.shuffled == found.rank).all()


def test_bad_input_is_refused(model: DarecModel):
    with pytest.raises(DataError, match="two items or more; this one has 1"):
        shuffle_history(model, [3], [1])
    with pytest.raises(DataError, match="shuffles must be at least 1; got 0"):
        shuffle_history(model, HISTORY, [1], shuffles=0)
    with pytest.raises(DataError, match="got 44"):
        shuffle_history(model, HISTORY, [44])
