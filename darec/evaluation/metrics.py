"""Metrics of ranked lists, all computed from the rank of the one item that was right.

A rank counts from 1, the best. A metric of no users is NaN, not 0.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from darec.errors import DataError

_RESAMPLES = 1000
_BLOCK = 50  # resamples held in memory at a time


def rank_of(
    scores: np.ndarray, targets: np.ndarray, excluded: np.ndarray | Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """Rank of each row's target among the items of that row.

    Ties count against the target: a model that gives every item the same score ranks each target last.

    Args:
        scores: [B, N] float, higher is better, no NaN; -inf is allowed.
        targets: [B] int64 item indices.
        excluded: items that take no part, as [B, N] bool or as one array of item indices a row; the target itself
            always takes part.

    Returns:
        [B] int64 in 1..N.

    Raises:
        DataError: a score is NaN.
    """
    scores = np.asarray(scores)
    rows = np.arange(len(scores))
    if np.isnan(scores).any():
        row, item = np.argwhere(np.isnan(scores))[0]
        raise DataError(f"Scores must be numbers; row {row} has NaN for item {item}. The model has diverged: retrain.")
    competes = ~exclusion_mask(excluded, scores.shape)
    competes[rows, targets] = False
    return 1 + ((scores >= scores[rows, targets][:, None]) & competes).sum(1).astype(np.int64)


def exclusion_mask(excluded: np.ndarray | Sequence[np.ndarray] | None, shape: tuple[int, ...]) -> np.ndarray:
    """[B, N] bool, a fresh array, from either form in which `rank_of` takes excluded items."""
    if isinstance(excluded, np.ndarray) and excluded.dtype == bool:
        return excluded.copy()
    mask = np.zeros(shape, bool)
    for row, items in enumerate(() if excluded is None else excluded):
        mask[row, items] = True
    return mask


def hit_rate(ranks: np.ndarray, k: int) -> float:
    """HR@k = mean of [rank <= k]: the share of users whose target is among the first k."""
    return _mean(hits(ranks, k))


def ndcg(ranks: np.ndarray, k: int) -> float:
    """NDCG@k = mean of [rank <= k] / log2(rank + 1); with one relevant item the ideal DCG is 1.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002.
    """
    return _mean(gains(ranks, k))


def mrr(ranks: np.ndarray) -> float:
    """MRR = mean of 1 / rank, without a cutoff. Source: Voorhees, The TREC-8 question answering track, 1999."""
    return _mean(1 / np.asarray(ranks, float))


def hits(ranks: np.ndarray, k: int) -> np.ndarray:
    """[users] float: each user's share in HR@k, 1 or 0."""
    return (np.asarray(ranks) <= k).astype(float)


def gains(ranks: np.ndarray, k: int) -> np.ndarray:
    """[users] float in 0..1: each user's share in NDCG@k."""
    ranks = np.asarray(ranks, float)
    return np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)


def catalog_coverage(lists: Sequence[Sequence[int]], num_items: int) -> float:
    """Share of the catalogue's N items that stand in at least one list of recommendations, in 0..1."""
    return len({item for items in lists for item in items}) / num_items if len(lists) else float("nan")


def mean_popularity(lists: Sequence[Sequence[int]], popularity: np.ndarray) -> float:
    """Mean number of training interactions of the items recommended, over all places of all lists."""
    return _mean(np.array([popularity[item] for items in lists for item in items], float))


def intra_list_diversity(lists: Sequence[Sequence[int]], texts: Sequence[str]) -> float:
    """1 - mean Jaccard similarity of the word sets of two items of one list, mean over lists of two or more items.

    Args:
        lists: item indices.
        texts: N item texts; a word is what stands between spaces, without case and outer punctuation.

    Returns:
        0 (every item of a list has the same words) to 1 (no two share a word).

    Source: Ziegler et al., Improving recommendation lists through topic diversification, WWW 2005, with words in the
    place of their taxonomy.
    """
    words: dict[int, frozenset[str]] = {}
    similarities: dict[tuple[int, int], float] = {}  # popular items meet again and again
    diversities = []
    for items in lists:
        for item in items:
            if item not in words:
                words[item] = frozenset(word.strip(".,:;!?()[]\"'") for word in texts[item].casefold().split()) - {""}
        pairs = [(min(a, b), max(a, b)) for i, a in enumerate(items) for b in items[i + 1 :]]
        for a, b in pairs:
            if (a, b) not in similarities:
                union = len(words[a] | words[b])
                similarities[a, b] = len(words[a] & words[b]) / union if union else 0.0
        if pairs:
            diversities.append(1 - sum(similarities[pair] for pair in pairs) / len(pairs))
    return _mean(np.array(diversities))


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean, users drawn with replacement 1,000 times.

    Args:
        values: [users] float, each user's share in a metric.
        seed: of the draws.

    Source: Efron and Tibshirani, An introduction to the bootstrap, 1993, chapter 13.
    """
    values = np.asarray(values, float)
    if not len(values):
        return float("nan"), float("nan")
    random = np.random.default_rng(seed)
    draws = (random.integers(len(values), size=(_BLOCK, len(values))) for _ in range(_RESAMPLES // _BLOCK))
    means = np.concatenate([values[draw].mean(1) for draw in draws])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def mean_with_interval(values: np.ndarray, seed: int = 0) -> dict[str, float]:
    """The mean of [users] values and its 95 % bootstrap interval, as plain numbers: mean, low, high."""
    low, high = bootstrap_interval(values, seed)
    return {"mean": _mean(values), "low": low, "high": high}


def spell_mean(value: Mapping[str, float], sign: str = "") -> str:
    """A mean with its interval, four digits each, from `mean`, `low` and `high`; signed where `sign` is `+`."""
    return f"{value['mean']:{sign}.4f} ({value['low']:{sign}.4f} to {value['high']:{sign}.4f})"


def spell_difference(value: Mapping[str, float]) -> str:
    """The same of `difference`, `low` and `high`, signed."""
    return spell_mean({**value, "mean": value["difference"]}, "+")


def paired_difference(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean of a - b over the same users, with its 95 % bootstrap interval: (mean, low, high).

    Raises:
        DataError: the two have different numbers of users.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise DataError(f"A paired comparison needs the same users on both sides; got {len(a)} and {len(b)}.")
    return (_mean(a - b), *bootstrap_interval(a - b, seed))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
