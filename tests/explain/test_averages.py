from collections.abc import Callable

import numpy as np
import pytest
from invented_films import SMALL

from darec.errors import DataError
from darec.evaluation.metrics import mean_with_interval
from darec.explain.attention import SHARES, explain_attention
from darec.explain.averages import UserAverage, average_attention_shares, average_score_terms
from darec.explain.score_terms import TERMS, explain_scores
from darec.model.recommender import DarecModel

HISTORIES = [[3, 8, 5], [1, 2], [7], [9, 10, 4, 6, 2]]


@pytest.fixture(scope="module")
def model(make_model: Callable[..., DarecModel]) -> DarecModel:
    return make_model()


def test_attention_shares_average_over_users_as_they_come(model: DarecModel):
    steps = list(average_attention_shares(model, HISTORIES, "causal"))
    assert [(step.users, step.total) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert steps[-1].names == SHARES
    expected = np.mean([explain_attention(model, history, "causal").shares for history in HISTORIES], axis=0)
    np.testing.assert_allclose(steps[-1].mean(), expected, atol=1e-6)
    np.testing.assert_allclose(steps[-1].mean().sum(axis=-1), 1, atol=1e-5)


def test_attention_averages_under_the_mask_that_the_model_recommends_under(model: DarecModel, make_model):
    masking = SMALL.masking.model_copy(update={"enabled": False})
    without = make_model(settings=SMALL.model_copy(update={"masking": masking}))
    for own, mask, other in ((model, "context", "causal"), (without, "causal", "context")):
        *_, found = average_attention_shares(own, HISTORIES[:1])
        np.testing.assert_array_equal(found.mean(), explain_attention(own, HISTORIES[0], mask).shares)
        assert np.abs(found.mean() - explain_attention(own, HISTORIES[0], other).shares).max() > 1e-4


@pytest.mark.parametrize("batch_size", [1, 3])
def test_score_terms_average_over_each_users_own_item(model: DarecModel, batch_size: int):
    items = [12, 3, 0, 19]
    *_, last = average_score_terms(model, HISTORIES, items, batch_size)
    assert last.names == TERMS
    each = [explain_scores(model, history, [item]).terms[:, 0] for history, item in zip(HISTORIES, items, strict=True)]
    np.testing.assert_allclose(last.values[:, 0], each, atol=1e-4)


def test_score_terms_average_as_of_when_each_user_asked(make_model):
    model = make_model()
    model.cold_prior.fill_(3.0)
    model.cold_days.fill_(1.0)
    model.newest.fill_(86_400)
    asked = 86_400 * (1 - np.log([1, 2, 3, 4]))  # so that the film without interactions gets 3 / 1 to 3 / 4
    *_, last = average_score_terms(model, HISTORIES, [4, 4, 4, 4], batch_size=3, asked=asked)
    *_, without = average_score_terms(make_model(), HISTORIES, [4, 4, 4, 4], batch_size=3)
    prior = (last.values - without.values)[:, 0, TERMS.index("prior")]
    np.testing.assert_allclose(prior, 0.9 * 3 / np.array([1, 2, 3, 4]), atol=1e-4)  # 2 of 20 films get it, 18 nothing


def test_intervals_are_those_of_the_metrics():
    values = np.random.default_rng(0).normal(size=(9, 2, 3))
    found = UserAverage(("a", "b", "c"), values, 9).intervals(seed=4)
    assert found.shape == (2, 3, 3)
    expected = mean_with_interval(values[:, 1, 2], seed=4)
    assert found[1, 2].tolist() == [expected["mean"], expected["low"], expected["high"]]


def test_bad_slice_is_refused(model: DarecModel):
    with pytest.raises(DataError, match="at least one user; this slice has none"):
        next(average_attention_shares(model, []))
    with pytest.raises(DataError, match="got 4 users and 1 items"):
        next(average_score_terms(model, HISTORIES, [1]))
