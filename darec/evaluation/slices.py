"""Metrics of parts of the users: by length of the history, by popularity of the target, by cold targets."""

from typing import Any

import numpy as np
import pandas as pd

from darec.data.splits import COLD_BELOW
from darec.evaluation.metrics import gains, hits, mean_with_interval

RELIABLE_FROM = 100  # users; a smaller slice is shown but is no result
_SLICES = (  # slice, column of the rank file, lower bounds of its classes
    ("history_length", "history_length", (1, 6, 11, 21, 51, 101, 201)),
    ("target_popularity", "target_popularity", (0, 5, 20, 50, 100, 200)),
    ("cold_target", "target_popularity", (0, COLD_BELOW)),
)


def slice_metrics(ranks: pd.DataFrame, seed: int = 0) -> list[dict[str, Any]]:
    """HR@10 and NDCG@10, seen items removed, of every class of every slice that has users.

    Args:
        ranks: a rank file; see `rank_cases`.
        seed: of the bootstrap.

    Returns:
        One dict a class: slice (history_length in items, target_popularity and cold_target in training
        interactions), from and to (both included; to is None for the open last class), users, reliable (false under
        100 users), hr@10 and ndcg@10 as {mean, low, high} with their 95 % interval. The classes of one slice cover
        every user once.
    """
    rows = []
    for name, column, bounds in _SLICES:
        classes = np.digitize(ranks[column], bounds) - 1
        for position, bound in enumerate(bounds):
            members = ranks.loc[classes == position, "rank"].to_numpy()
            if not len(members):
                continue
            rows.append(
                {
                    "slice": name,
                    "from": bound,
                    "to": bounds[position + 1] - 1 if position + 1 < len(bounds) else None,
                    "users": len(members),
                    "reliable": len(members) >= RELIABLE_FROM,
                    "hr@10": mean_with_interval(hits(members, 10), seed),
                    "ndcg@10": mean_with_interval(gains(members, 10), seed),
                }
            )
    return rows
