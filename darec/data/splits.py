"""Training histories, validation cases and test cases."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from darec.data.interactions import Dataset
from darec.errors import DataError

SplitName = Literal["valid", "test"]
COLD_BELOW = 5  # training interactions; an item with fewer is cold
NEW_DAYS = 60  # in which a cold item counts as new
SECONDS_A_DAY = 86_400


@dataclass(frozen=True, eq=False)
class Cases:
    """What a model is asked and what is right: for each user a history and the item that came next.

    Attributes:
        user_ids: one a case.
        histories: one [length] int64 array of item indices a case, oldest first, never empty.
        targets: [cases] int64 item indices.
        asked: [cases] when each target was chosen, in seconds; None where the data only orders.
    """

    user_ids: list[str]
    histories: list[np.ndarray]
    targets: np.ndarray
    asked: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.user_ids)

    def asked_at(self, position: int) -> float | None:
        """When the case at this position was asked, in seconds, if anybody knows."""
        return None if self.asked is None else float(self.asked[position])

    def subset(self, indices: np.ndarray) -> "Cases":
        """The cases at these positions, in that order."""
        asked = None if self.asked is None else self.asked[indices]
        user_ids, histories = [self.user_ids[i] for i in indices], [self.histories[i] for i in indices]
        return Cases(user_ids, histories, self.targets[indices], asked)

    def sample(self, count: int, seed: int) -> "Cases":
        """A fixed random part of so many cases; all, where `count` is 0 or there are no more."""
        if not count or count >= len(self):
            return self
        return self.subset(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))

    def batches(self, size: int) -> "Iterator[Cases]":
        """All cases in their order, `size` at a time."""
        return (self.subset(np.arange(first, min(first + size, len(self)))) for first in range(0, len(self), size))


@dataclass(frozen=True, eq=False)
class Split:
    """The three parts of a data set.

    Attributes:
        num_items: N, the size of the catalogue.
        train: one [length] int64 array of item indices a user, oldest first.
        valid: cases for every choice (early stopping, hyperparameters).
        test: cases read once for each reported run; their histories include the validation item.
        first_taken: [N] int64, seconds; each item's first training interaction, of items that have none the last one of
            all. None where the data only orders.
        trained_until: seconds; the last training interaction of all. None where the data only orders.
    """

    num_items: int
    train: list[np.ndarray]
    valid: Cases
    test: Cases
    first_taken: np.ndarray | None = None
    trained_until: int | None = None

    def cases(self, name: SplitName) -> Cases:
        """The validation or the test cases.

        Raises:
            DataError: there are none.
        """
        cases = self.valid if name == "valid" else self.test
        if not len(cases):
            raise DataError(f"The data set has no {name} case. Label rows so, or leave the split column out.")
        return cases

    def sample(self, users: int, seed: int) -> "Split":
        """A fixed random part of so many training users and validation cases; all, where `users` is 0 or too many."""
        if not users or users >= len(self.train):
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self.train))[:users])
        return replace(self, train=[self.train[user] for user in chosen], valid=self.valid.sample(users, seed))

    @cached_property
    def popularity(self) -> np.ndarray:
        """[N] int64: training interactions of each item; 0 marks a cold item."""
        items = np.concatenate(self.train) if self.train else np.empty(0, np.int64)
        return np.bincount(items, minlength=self.num_items)

    @cached_property
    def new_items(self) -> np.ndarray:
        """[N] bool: cold items of which no training interaction is more than `NEW_DAYS` older than the newest one.

        Of an item that has long been there, few interactions say that few want it; of a new one they say nothing. An
        item that has none counts as new: whether it is, nobody knows.
        """
        cold = self.popularity < COLD_BELOW
        if self.first_taken is None or self.trained_until is None:
            return cold
        return cold & (self.trained_until - self.first_taken <= NEW_DAYS * SECONDS_A_DAY)


def split(dataset: Dataset) -> Split:
    """Follow the data set's published split, or else leave each user's last two items out.

    Leave-one-out: a user's last item is the test target, the one before it the validation target, the rest training;
    users with fewer than three items only train. A published split labels rows `train`, `val` or `test`: the last row
    with a label is that part's target and every row before it the history, so both leave-one-out labels and whole
    held-out users come out right. A target without a row before it is no case.

    Raises:
        DataError: nothing to train on, no validation case, or a published split that runs against time.
    """
    has_labels = "split" in dataset.interactions
    labels = dataset.interactions["split"].to_numpy(dtype=object) if has_labels else None
    if labels is not None:
        _require_time_order(dataset.interactions["user_id"].to_numpy(dtype=object), labels)
    train: list[np.ndarray] = []
    train_rows: list[np.ndarray] = []
    times = dataset.interactions["timestamp"].to_numpy()
    parts: dict[str, tuple[list[str], list[np.ndarray], list[int]]] = {"val": ([], [], []), "test": ([], [], [])}
    for user_id, rows in dataset.rows_by_user():
        items = dataset.item_index[rows]
        user_labels = _leave_one_out_labels(len(items)) if labels is None else labels[rows]
        train_items = items[user_labels == "train"]
        if len(train_items):
            train.append(train_items)
            train_rows.append(rows.start + np.flatnonzero(user_labels == "train"))
        for name, (user_ids, histories, chosen) in parts.items():
            positions = np.flatnonzero(user_labels == name)
            if len(positions) and positions[-1] > 0:
                user_ids.append(user_id)
                histories.append(items[: positions[-1]])
                chosen.append(rows.start + int(positions[-1]))
    valid, test = (
        Cases(user_ids, histories, dataset.item_index[chosen], times[chosen] if dataset.has_dates else None)
        for user_ids, histories, chosen in parts.values()
    )
    if max(map(len, train), default=0) < 2:
        raise DataError("Training needs a user with two training interactions; there is none. Label more rows train.")
    if not len(valid):
        remedy = "Label rows val" if has_labels else "Give users with three interactions or more"
        raise DataError(f"Every choice is made on validation cases; the data set has none. {remedy}.")
    dated = _first_and_last(dataset, np.concatenate(train_rows)) if dataset.has_dates else (None, None)
    return Split(len(dataset.catalog), train, valid, test, *dated)


def _first_and_last(dataset: Dataset, rows: np.ndarray) -> tuple[np.ndarray, int]:
    """[N] int64 seconds: each item's first interaction among `rows`, or else their last one; and that last one."""
    times = dataset.interactions["timestamp"].to_numpy()[rows]
    first = np.full(len(dataset.catalog), times.max())
    np.minimum.at(first, dataset.item_index[rows], times)
    return first, int(times.max())


def _require_time_order(user_ids: np.ndarray, labels: np.ndarray) -> None:
    """A later label before an earlier one would train on what comes after the question."""
    rank = np.select([labels == "train", labels == "val"], [0, 1], 2)
    wrong = np.flatnonzero((rank[1:] < rank[:-1]) & (user_ids[1:] == user_ids[:-1]))
    if len(wrong):
        row = wrong[0] + 1
        raise DataError(
            f"A split must follow time: train, then val, then test; user {user_ids[row]!r} has {labels[row]} after "
            f"{labels[row - 1]}. Correct the labels, or leave the split column out to hold the last two out."
        )


def _leave_one_out_labels(length: int) -> np.ndarray:
    labels = np.full(length, "train", dtype=object)
    if length >= 3:
        labels[-2:] = "val", "test"
    return labels
