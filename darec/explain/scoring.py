"""What every explanation asks of a model first: is this a history, how probable is each item after it, at which rank.

symbol  meaning
n       histories
N       items in the catalogue
"""

from collections.abc import Sequence

import numpy as np

from darec.data import catalog
from darec.data.catalog import History
from darec.errors import DataError
from darec.evaluation.metrics import exclusion_mask
from darec.model.recommender import DarecModel


def check_history(model: DarecModel, history: History) -> None:
    """Refuse what cannot be read.

    Raises:
        DataError: as `catalog.check_history`.
    """
    catalog.check_history(history, len(model.known))


def check_items(model: DarecModel, items: Sequence[int]) -> None:
    """Refuse what the catalogue does not hold.

    Raises:
        DataError: as `catalog.check_items`.
    """
    catalog.check_items(items, len(model.known))


def seen_items(history: History) -> np.ndarray:
    """[items] int64: the catalogue's items in a history, as often as they stand there."""
    return np.array([entry for entry in history if not isinstance(entry, str)], np.int64)


def candidates_after(model: DarecModel, history: History, *, exclude_seen: bool = True) -> np.ndarray:
    """[N] bool: the items that can be recommended after a history.

    Raises:
        DataError: nothing is left to recommend.
    """
    candidates = ~exclusion_mask([seen_items(history)] if exclude_seen else None, (1, len(model.known)))[0]
    if not candidates.any():
        raise DataError("The history holds every item of the catalogue. Keep the seen items to rank them.")
    return candidates


def scores_after(model: DarecModel, histories: Sequence[History], *, collaborative: bool = True) -> np.ndarray:
    """[n, N] float64: the model's scores, with the CF path or without it."""
    score = model.score if collaborative else model.score_without_collaborative
    return score(histories).astype(np.float64)


def log_probabilities(scores: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """The log of the softmax over the candidates: what `Recommender.probabilities` shows, in logarithms.

    Args:
        scores: [..., N] float.
        candidates: [N] bool.

    Returns:
        [..., N] float64, natural logarithms; -inf for items that are no candidates. The exponentials sum to 1.
    """
    scores = np.where(candidates, scores, -np.inf)
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def ranks_among(scores: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Rank of every candidate by falling score, ties in catalogue order, as lists show them.

    Args:
        scores: [..., N] float.
        candidates: [N] bool.

    Returns:
        [..., N] int64 from 1; 0 for items that are no candidates.
    """
    order = np.argsort(-np.where(candidates, scores, -np.inf), axis=-1, kind="stable")
    places = np.broadcast_to(np.arange(1, scores.shape[-1] + 1), scores.shape)
    ranks = np.empty(scores.shape, np.int64)
    np.put_along_axis(ranks, order, places, axis=-1)
    return np.where(candidates, ranks, 0)
