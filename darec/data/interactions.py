"""The normalised form: who interacted with what, in which order."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from darec.data.catalog import Catalog
from darec.errors import DataError
from darec.runs import sha256_of

INTERACTIONS = "interactions.parquet"
ITEMS = "items.parquet"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A catalogue and the interactions with it.

    Attributes:
        catalog: the N items.
        interactions: user_id (str), item_id (str), timestamp (number), optional rating (number), optional split
            (`train`, `val` or `test`); rows of one user stand together, in time order, ties in file order.
    """

    catalog: Catalog
    interactions: pd.DataFrame

    @classmethod
    def load(cls, folder: str | Path) -> "Dataset":
        """Read and check the normalised pair in `folder`.

        Raises:
            DataError: a file is missing or breaks a rule of the normalised form.
        """
        folder = Path(folder)
        for name in (INTERACTIONS, ITEMS):
            if not (folder / name).is_file():
                raise DataError(f"{folder} must hold {name}. Make it with `python -m darec data prepare`.")
        return validated(pd.read_parquet(folder / INTERACTIONS), pd.read_parquet(folder / ITEMS), source=str(folder))

    def save(self, folder: str | Path) -> None:
        """Write the normalised pair into an existing folder."""
        self.interactions.to_parquet(Path(folder) / INTERACTIONS, index=False)
        self.catalog.items.to_parquet(Path(folder) / ITEMS, index=False)

    @cached_property
    def item_index(self) -> np.ndarray:
        """[rows of interactions] int64: each interaction's item_index."""
        return (
            self.interactions["item_id"].map({id_: i for i, id_ in enumerate(self.catalog.item_ids)}).to_numpy(np.int64)
        )

    def rows_by_user(self) -> Iterator[tuple[str, slice]]:
        """Each user_id with the rows of `interactions` that are hers, users in order of first appearance."""
        user_ids = self.interactions["user_id"].to_numpy(dtype=object)
        starts = [row for row in range(len(user_ids)) if row == 0 or user_ids[row] != user_ids[row - 1]]
        for start, end in zip(starts, [*starts[1:], len(user_ids)], strict=True):
            yield user_ids[start], slice(start, end)


def fingerprint(folder: str | Path) -> str:
    """A hash of the normalised pair's bytes, to tell whether two runs saw the same data."""
    sums = sha256_of(Path(folder) / INTERACTIONS) + sha256_of(Path(folder) / ITEMS)
    return hashlib.sha256(sums.encode()).hexdigest()[:16]


def validated(interactions: pd.DataFrame, items: pd.DataFrame, source: str) -> Dataset:
    """Check both tables, bring them into the normalised form and order.

    Args:
        interactions: at least user_id, item_id, timestamp.
        items: at least item_id, title.
        source: what to call the data in an error.

    Raises:
        DataError: naming the file, the row and the remedy.
    """
    interactions = interactions.copy()
    items = items.reset_index(drop=True).copy()
    for table in (interactions, items):
        for name in {"user_id", "item_id"} & set(table.columns):
            table[name] = table[name].astype(str).astype(object)
    users = interactions["user_id"].drop_duplicates()
    order = interactions["user_id"].map({user: i for i, user in enumerate(users)}).to_numpy()
    interactions = interactions.iloc[np.lexsort((interactions["timestamp"].to_numpy(), order))].reset_index(drop=True)
    return Dataset(Catalog(items), interactions)
