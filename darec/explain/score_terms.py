"""What a score is made of: signed terms, each against the catalogue's average, and the rank without the CF path."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from darec.data.catalog import History
from darec.explain.scoring import (
    candidates_after,
    check_history,
    check_items,
    log_probabilities,
    ranks_among,
    scores_after,
)
from darec.model.recommender import DarecModel, ScoreTerms

TERMS = ScoreTerms._fields  # text, collaborative, prior, late, followed


@dataclass(frozen=True, eq=False)
class ScoreBreakdown:
    """The scores of m items after one history.

    Attributes:
        items: [m] int64 item indices.
        terms: [5, m] float64, in the order of `TERMS`, each minus its own mean over the whole catalogue: signed terms,
            not shares. Down a column they sum to `score`.
        score: [m] float64, the item's score minus the catalogue's mean score. A difference of two scores is the
            natural logarithm of the ratio of their probabilities.
        log_probability: [m] float64 among the candidates; -inf for an item that is none.
        rank: [m] int64 from 1; 0 for an item that is no candidate.
        rank_cf_off: [m] int64; the same with the whole CF path switched off.
    """

    items: np.ndarray
    terms: np.ndarray
    score: np.ndarray
    log_probability: np.ndarray
    rank: np.ndarray
    rank_cf_off: np.ndarray


def explain_scores(
    model: DarecModel,
    history: History,
    items: Sequence[int],
    *,
    collaborative: bool = True,
    exclude_seen: bool = True,
) -> ScoreBreakdown:
    """Take the scores of some items apart.

    Args:
        model: in evaluation mode.
        history: oldest first.
        items: item indices.
        collaborative: whether the CF path takes part in everything but `rank_cf_off`.
        exclude_seen: leave the items of the history out of ranks and probabilities.

    Raises:
        DataError: the history cannot be read, or an item is none of the catalogue's.
    """
    check_history(model, history)
    check_items(model, items)
    chosen = np.array(items, np.int64)
    candidates = candidates_after(model, history, exclude_seen=exclude_seen)
    raw = term_array(model.last_terms([history], collaborative=collaborative))[0]  # [5, N]
    centred = raw - raw.mean(axis=-1, keepdims=True)
    scores = raw.sum(axis=0)
    off = scores_after(model, [history], collaborative=False)[0]
    return ScoreBreakdown(
        chosen,
        centred[:, chosen],
        centred.sum(axis=0)[chosen],
        log_probabilities(scores, candidates)[chosen],
        ranks_among(scores, candidates)[chosen],
        ranks_among(off, candidates)[chosen],
    )


def term_array(terms: ScoreTerms) -> np.ndarray:
    """[n, 5, N] float64: the terms of n histories, in the order of `TERMS`."""
    return np.stack([term.double().cpu().numpy() for term in terms], axis=1)
