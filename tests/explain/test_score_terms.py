from collections.abc import Callable

import numpy as np
import pytest
import torch
from invented_films import COLD_FILMS, SMALL

from darec.config import CollaborativeSettings, InjectionSettings
from darec.errors import DataError
from darec.explain.score_terms import TERMS, explain_scores
from darec.explain.scoring import log_probabilities, ranks_among
from darec.model.recommender import DarecModel

HISTORY = [3, 8, 5]


@pytest.fixture(scope="module")
def model(make_model: Callable[..., DarecModel]) -> DarecModel:
    model = make_model(settings=SMALL.model_copy(update={"injection": InjectionSettings(followers=3)}))
    assert model.followers is not None
    model.followers.keep(torch.arange(20), 0.1 * torch.rand(20, 20, generator=torch.Generator().manual_seed(0)))
    model.followers.trust.fill_(10.0)
    return model


def test_terms_sum_to_the_score_and_centre_on_the_catalogue(model: DarecModel):
    found = explain_scores(model, HISTORY, range(20))
    np.testing.assert_allclose(found.terms.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(found.terms.sum(axis=0), found.score, atol=1e-6)
    scores = model.score([HISTORY])[0].astype(float)
    np.testing.assert_allclose(found.score, scores - scores.mean(), atol=1e-4)
    assert (np.abs(found.terms).max(axis=1) > 1e-3).all()


def test_prior_is_the_bias_of_known_items(model: DarecModel):
    bias = model.item_bias.detach().numpy().astype(float)
    bias[COLD_FILMS] = 0
    found = explain_scores(model, HISTORY, [1, 4])
    np.testing.assert_allclose(found.terms[TERMS.index("prior")], bias[[1, 4]] - bias.mean(), atol=1e-6)


def test_ranks_with_and_without_the_collaborative_path(model: DarecModel):
    found = explain_scores(model, HISTORY, [1, 3, 12])
    candidates = np.ones(20, bool)
    candidates[HISTORY] = False
    for ranks, scores in (
        (found.rank, model.score([HISTORY])),
        (found.rank_cf_off, model.score_without_collaborative([HISTORY])),
    ):
        np.testing.assert_array_equal(ranks, ranks_among(scores[0], candidates)[[1, 3, 12]])
        assert ranks[1] == 0
    assert found.log_probability[1] == -np.inf
    kept = explain_scores(model, HISTORY, [1, 3, 12], exclude_seen=False)
    assert kept.rank[1] > 0


def test_with_the_collaborative_path_off_terms_score_and_rank_are_those_of_text_alone(model: DarecModel):
    found = explain_scores(model, HISTORY, [1, 2, 12], collaborative=False)
    scores = model.score_without_collaborative([HISTORY])[0].astype(float)
    np.testing.assert_allclose(found.score, (scores - scores.mean())[[1, 2, 12]], atol=1e-4)
    np.testing.assert_allclose(found.terms.sum(axis=0), found.score, atol=1e-6)
    np.testing.assert_array_equal(found.rank, found.rank_cf_off)
    assert (explain_scores(model, HISTORY, [1, 2, 12]).rank != found.rank).any()


def test_without_a_collaborative_model_its_terms_are_zero(make_model: Callable[..., DarecModel]):
    settings = SMALL.model_copy(update={"collaborative": CollaborativeSettings(enabled=False, max_items=8)})
    found = explain_scores(make_model(settings=settings), HISTORY, [1, 2])
    assert (found.terms[[1, 3]] == 0).all()
    np.testing.assert_array_equal(found.rank, found.rank_cf_off)


def test_planted_text_term_ranks_its_item_first(make_model: Callable[..., DarecModel]):
    model = make_model()
    with torch.no_grad():
        model.item_bias[7] = 1000.0
    found = explain_scores(model, HISTORY, [7])
    assert found.rank.tolist() == [1]
    assert TERMS[int(found.terms[:, 0].argmax())] == "prior"


def test_ranks_and_log_probabilities_by_hand():
    scores = np.array([1.0, 3.0, 3.0, 9.0])
    candidates = np.array([True, True, True, False])
    assert ranks_among(scores, candidates).tolist() == [3, 1, 2, 0]
    logs = log_probabilities(scores, candidates)
    total = np.exp(1) + 2 * np.exp(3)
    np.testing.assert_allclose(logs[:3], [1 - np.log(total), 3 - np.log(total), 3 - np.log(total)])
    assert logs[3] == -np.inf


def test_bad_input_is_refused(model: DarecModel):
    with pytest.raises(DataError, match="got 20"):
        explain_scores(model, HISTORY, [20])
    with pytest.raises(DataError, match="holds every item of the catalogue"):
        explain_scores(model, list(range(20)), [1])
