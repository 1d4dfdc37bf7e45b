"""The k-core: what is left when everyone and everything rare is taken out."""

import pandas as pd

from darec.errors import DataError


def k_core(interactions: pd.DataFrame, k: int) -> pd.DataFrame:
    """The rows in which every user and every item has at least `k` rows, order and index kept.

    Taking out a rare item can make a user rare and the other way round, so it repeats until nothing changes; the
    result is the largest such set, whatever the order of the steps.

    Args:
        interactions: user_id and item_id; further columns are carried along.
        k: at least 0; 0 and 1 change nothing.

    Raises:
        DataError: nothing is left.
    """
    kept = interactions
    while True:
        enough = (kept["user_id"].map(kept["user_id"].value_counts()) >= k) & (
            kept["item_id"].map(kept["item_id"].value_counts()) >= k
        )
        if enough.all():
            break
        kept = kept[enough]
    if not len(kept):
        raise DataError(f"No interaction is left where every user and item must have {k}. Ask for fewer.")
    return kept
