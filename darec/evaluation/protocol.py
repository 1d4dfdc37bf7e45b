"""The evaluation protocol: the whole catalogue is ranked for every user, with seen items removed and with them kept.

`rank_cases` makes the rank file of a run, one row a user; every metric, interval and slice is computed from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd

from darec.data.catalog import Catalog
from darec.data.splits import Cases, Split, SplitName
from darec.evaluation.metrics import (
    catalog_coverage,
    exclusion_mask,
    gains,
    hits,
    intra_list_diversity,
    mean_popularity,
    mean_with_interval,
    paired_difference,
    rank_of,
)
from darec.evaluation.slices import slice_metrics

TOP = 10  # items of each user's list that the rank file keeps
_RANKINGS = {  # name in a summary -> column of the rank file
    "seen_removed": "rank",
    "seen_kept": "rank_seen_kept",
    "cf_off_seen_removed": "rank_cf_off",
    "cf_off_seen_kept": "rank_cf_off_seen_kept",
}


class Scorer(Protocol):
    """Whatever gives every item of the catalogue a score."""

    def score(self, histories: Sequence[Sequence[int | str]]) -> np.ndarray:
        """[B, N] float32, higher is better.

        Args:
            histories: B histories, oldest entry first; an int is an item_index, a str the title of an item that the
                catalogue lacks. A model that cannot read text skips the latter.
        """
        ...


@runtime_checkable
class SwitchableScorer(Scorer, Protocol):
    """A scorer whose collaborative knowledge can be switched off."""

    def score_without_collaborative(self, histories: Sequence[Sequence[int | str]]) -> np.ndarray:
        """As `score`, from text alone."""
        ...


@runtime_checkable
class TimedScorer(Scorer, Protocol):
    """A scorer that ranks differently at different times."""

    def asked(self, at: np.ndarray | float) -> Self:
        """The same scorer, asked at that time.

        Args:
            at: seconds since 1970; [B], one for each history that will be given, or one for all.
        """
        ...


def rank_cases(
    scorer: Scorer,
    split: Split,
    name: SplitName,
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Rank every target of a part against the whole catalogue.

    Args:
        scorer: the model.
        split: the data.
        name: `valid` or `test`.
        batch_size: histories a call of the scorer.
        on_progress: receives the users done and the users in all.

    Returns:
        The rank file, one row a user: user_id, target (item_index), rank (seen items removed, from 1; ties count
        against the target), rank_seen_kept, history_length (items), target_popularity (training interactions),
        top_items (up to 10 item indices, best first, seen items removed); for a scorer that can switch collaborative
        knowledge off also rank_cf_off and rank_cf_off_seen_kept.

    Raises:
        DataError: the part has no cases, or a score is NaN.
    """
    cases = split.cases(name)
    frames: list[pd.DataFrame] = []
    for batch in cases.batches(batch_size):
        frames.append(_rank_batch(scorer, batch, split))
        if on_progress:
            on_progress(sum(map(len, frames)), len(cases))
    return pd.concat(frames, ignore_index=True)


def summarize(ranks: pd.DataFrame, catalog: Catalog, split: Split, seed: int = 0) -> dict[str, Any]:
    """All figures of a run from its rank file.

    Args:
        ranks: the rank file.
        catalog: for the words of the items recommended.
        split: for their popularity.
        seed: of the bootstrap.

    Returns:
        users; for each of seen_removed, seen_kept and, where ranked, cf_off_seen_removed and cf_off_seen_kept the
        metrics hr@{1,5,10,20}, ndcg@{5,10,20} and mrr as {mean, low, high} with their 95 % interval; beyond_accuracy
        of the lists of 10; slices. Everything is plain numbers, ready for JSON.
    """
    lists = [list(map(int, items)) for items in ranks["top_items"]]
    rankings = {
        key: {metric: mean_with_interval(values, seed) for metric, values in _metrics_by_user(ranks[column]).items()}
        for key, column in _RANKINGS.items()
        if column in ranks
    }
    return {
        "users": len(ranks),
        **rankings,
        "beyond_accuracy": {
            "catalog_coverage": catalog_coverage(lists, split.num_items),
            "mean_popularity": mean_popularity(lists, split.popularity),
            "intra_list_diversity": intra_list_diversity(lists, catalog.full_texts),
        },
        "slices": slice_metrics(ranks, seed),
    }


def compare_ranks(a: pd.Series, b: pd.Series, seed: int = 0) -> dict[str, float]:
    """NDCG@10 of one model minus that of another on the same users in the same order.

    Args:
        a: ranks, a column of a rank file.
        b: the other model's.
        seed: of the bootstrap.

    Returns:
        users, difference, and its paired 95 % interval low and high.
    """
    return compare_gains(gains(a.to_numpy(), 10), gains(b.to_numpy(), 10), seed)


def compare_gains(a: np.ndarray, b: np.ndarray, seed: int = 0) -> dict[str, float]:
    """As `compare_ranks`, of [users] NDCG@10 themselves, such as means over seeds."""
    difference, low, high = paired_difference(a, b, seed)
    return {"users": len(a), "difference": difference, "low": low, "high": high}


def shuffle_test(
    scorer: Scorer, split: Split, name: SplitName, seed: int, batch_size: int = 64, ranks: pd.DataFrame | None = None
) -> dict[str, float]:
    """What the order of the history is worth: NDCG@10 as it is, minus NDCG@10 when every history is shuffled.

    Args:
        scorer: the model.
        split: the data.
        name: `valid` or `test`.
        seed: of the shuffles and of the bootstrap.
        batch_size: histories a call of the scorer.
        ranks: the rank file of the ordered histories where it exists already.

    Returns:
        users, ndcg@10, shuffled_ndcg@10, and drop with its paired 95 % interval low and high.
    """
    random = np.random.default_rng(seed)
    cases = split.cases(name)
    shuffled = replace(cases, histories=[random.permutation(history) for history in cases.histories])
    ordered = rank_cases(scorer, split, name, batch_size) if ranks is None else ranks
    after = rank_cases(scorer, Split(split.num_items, split.train, shuffled, shuffled), name, batch_size)
    a, b = gains(ordered["rank"].to_numpy(), 10), gains(after["rank"].to_numpy(), 10)
    drop, low, high = paired_difference(a, b, seed)
    return {
        "users": len(cases),
        "ndcg@10": float(a.mean()),
        "shuffled_ndcg@10": float(b.mean()),
        "drop": drop,
        "low": low,
        "high": high,
    }


def _rank_batch(scorer: Scorer, cases: Cases, split: Split) -> pd.DataFrame:
    histories = [history.tolist() for history in cases.histories]
    if isinstance(scorer, TimedScorer) and cases.asked is not None:
        scorer = scorer.asked(cases.asked)
    scores = scorer.score(histories)
    columns: dict[str, Any] = {
        "user_id": cases.user_ids,
        "target": cases.targets,
        "rank": rank_of(scores, cases.targets, cases.histories),
        "rank_seen_kept": rank_of(scores, cases.targets),
        "history_length": [len(history) for history in histories],
        "target_popularity": split.popularity[cases.targets],
        "top_items": top_items(scores, cases.histories, TOP),
    }
    if isinstance(scorer, SwitchableScorer):
        scores = scorer.score_without_collaborative(histories)
        columns["rank_cf_off"] = rank_of(scores, cases.targets, cases.histories)
        columns["rank_cf_off_seen_kept"] = rank_of(scores, cases.targets)
    return pd.DataFrame(columns)


def top_items(scores: np.ndarray, excluded: Sequence[np.ndarray] | np.ndarray | None, k: int) -> list[list[int]]:
    """Up to k item indices a row, best first; ties by index; excluded items and those scored -inf are left out."""
    scores = np.where(exclusion_mask(excluded, scores.shape), -np.inf, scores)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return [[int(item) for item in items if row[item] > -np.inf] for row, items in zip(scores, best, strict=True)]


def _metrics_by_user(ranks: pd.Series) -> dict[str, np.ndarray]:
    values = ranks.to_numpy()
    return {
        **{f"hr@{k}": hits(values, k) for k in (1, 5, 10, 20)},
        **{f"ndcg@{k}": gains(values, k) for k in (5, 10, 20)},
        "mrr": 1 / values,
    }
