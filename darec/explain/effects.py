"""What a recommendation rests on: the history is changed and read again, and the change of the answer is measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from darec.data.catalog import History
from darec.errors import DataError
from darec.explain.scoring import (
    candidates_after,
    check_history,
    check_items,
    log_probabilities,
    ranks_among,
    scores_after,
)
from darec.model.recommender import DarecModel

Entry = int | str


@dataclass(frozen=True, eq=False)
class HistoryEffects:
    """Leave-one-out effects on the log-probability of one recommendation.

    The probability is the softmax over the candidates of the *whole* history, in every reading, so that an effect never
    comes from a change of the competitors. Natural logarithms: +0.69 means that the item doubles the probability.

    Attributes:
        entries: the history, oldest first.
        item: item_index of the recommendation.
        effects: [len(entries)] float64, log p(whole history) - log p(history without this entry): above 0 where the
            entry speaks for the recommendation. NaN where not computed yet. An entry that leaves the window lets the
            one before the window in, as it would in use.
        log_probability: with the whole history.
        total: log p(whole history) - log p(the newest entry alone). No model can read an empty history, so this is the
            joint effect of every entry *but the newest*.
    """

    entries: tuple[Entry, ...]
    item: int
    effects: np.ndarray
    log_probability: float
    total: float

    @property
    def known(self) -> int:
        """How many effects are known."""
        return int((~np.isnan(self.effects)).sum())

    @property
    def complete(self) -> bool:
        """Whether every effect is known."""
        return self.known == len(self.effects)

    @property
    def summed(self) -> float:
        """The sum of the effects of every entry but the newest; NaN until all are known."""
        return float(self.effects[:-1].sum())

    @property
    def remainder(self) -> float:
        """total - summed: what entries do only together, or each in the other's place. NaN until all are known."""
        return self.total - self.summed


def leave_one_out(
    model: DarecModel,
    history: History,
    item: int,
    *,
    collaborative: bool = True,
    exclude_seen: bool = True,
    batch_size: int = 8,
    known: HistoryEffects | None = None,
) -> Iterator[HistoryEffects]:
    """Leave each entry out in turn, newest first, and yield what is known so far after every batch.

    Args:
        model: in evaluation mode.
        history: oldest first, two entries or more.
        item: the recommendation in focus.
        collaborative: whether the CF path takes part.
        exclude_seen: whether the items of the history compete.
        batch_size: changed histories a forward pass.
        known: what was yielded of the same question before it was stopped; only the rest is computed.

    Yields:
        At once the log-probability and the total, then ever more effects; the last one is complete.

    Raises:
        DataError: the history cannot be read or has one entry only, or the item is no candidate.
    """
    check_history(model, history)
    check_items(model, [item])
    if len(history) < 2:
        raise DataError("Leaving an item out needs a history of two items or more; this one has 1. Add an item.")
    candidates = candidates_after(model, history, exclude_seen=exclude_seen)
    if not candidates[item]:
        raise DataError(f"A focused item must not stand in the history; {item} does. Keep the seen items to rank it.")

    def log_probability(histories: list[History]) -> np.ndarray:
        scores = scores_after(model, histories, collaborative=collaborative)
        return log_probabilities(scores, candidates)[:, item]

    entries = tuple(entry if isinstance(entry, str) else int(entry) for entry in history)
    whole, newest = log_probability([entries, entries[-1:]])
    effects = np.full(len(entries), np.nan) if known is None else known.effects.copy()
    settings = model.settings
    reach = max(settings.sequence.max_items, settings.collaborative.max_items)
    effects[: max(0, len(entries) - reach)] = 0.0  # nothing reads as far back as that
    yield HistoryEffects(entries, int(item), effects.copy(), float(whole), float(whole - newest))
    pending = np.flatnonzero(np.isnan(effects))[::-1]
    for start in range(0, len(pending), batch_size):
        left_out = pending[start : start + batch_size]
        effects[left_out] = whole - log_probability([drop(entries, int(place)) for place in left_out])
        yield HistoryEffects(entries, int(item), effects.copy(), float(whole), float(whole - newest))


def drop(history: History, position: int) -> tuple[Entry, ...]:
    """The history without one entry.

    Raises:
        DataError: there is no such position, or nothing would be left.
    """
    _check_position(history, position)
    if len(history) < 2:
        raise DataError("A history needs at least one item; the only one cannot be dropped. Swap it for another.")
    return (*history[:position], *history[position + 1 :])


def swap(history: History, position: int, entry: Entry) -> tuple[Entry, ...]:
    """The history with `entry` in the place of the one at `position`.

    Raises:
        DataError: there is no such position.
    """
    _check_position(history, position)
    return (*history[:position], entry, *history[position + 1 :])


def move(history: History, position: int, to: int) -> tuple[Entry, ...]:
    """The history with the entry at `position` taken out and put back so that it stands at `to`.

    Raises:
        DataError: one of the positions does not exist.
    """
    _check_position(history, position)
    _check_position(history, to)
    rest = [*history[:position], *history[position + 1 :]]
    return (*rest[:to], history[position], *rest[to:])


@dataclass(frozen=True, eq=False)
class RankChanges:
    """How a changed history moves a pinned list.

    Attributes:
        items: [m] int64 item indices: the pinned list in its order, then newcomers, the best first: items that stand
            among the first len(pinned) of what lists show only after the change.
        pinned: [m] bool; true for the pinned list.
        before: [m] int64 ranks after the history as it was, from 1; 0 where the item is no candidate because that
            history holds it.
        after: [m] int64 the same after the changed history.
        log_ratio: [m] float64, log p(after) - log p(before), natural logarithms; NaN where a rank is 0.
    """

    items: np.ndarray
    pinned: np.ndarray
    before: np.ndarray
    after: np.ndarray
    log_ratio: np.ndarray


def compare_histories(
    model: DarecModel,
    before: History,
    after: History,
    pinned: Sequence[int],
    *,
    collaborative: bool = True,
    exclude_seen: bool = True,
    shown: np.ndarray | None = None,
) -> RankChanges:
    """Rank the catalogue after two histories, each with its own seen items left out, as the lists show them.

    Args:
        model: in evaluation mode.
        before: the history that the pinned list belongs to.
        after: the changed one.
        pinned: item indices, none twice.
        collaborative: whether the CF path takes part.
        exclude_seen: leave the items of each history out.
        shown: [N] bool, the items that lists show, which alone can be newcomers; all if not given. Ranks stay those
            among all candidates.

    Raises:
        DataError: a history cannot be read, or a pinned item is none of the catalogue's or stands there twice.
    """
    check_items(model, pinned)
    if len(set(pinned)) < len(pinned):
        raise DataError(f"A pinned list holds an item once; got {list(pinned)}. Remove the repetition.")
    for history in (before, after):
        check_history(model, history)
    scores = scores_after(model, [before, after], collaborative=collaborative)
    sides = [candidates_after(model, history, exclude_seen=exclude_seen) for history in (before, after)]
    ranks = np.stack([ranks_among(*side) for side in zip(scores, sides, strict=True)])
    logs = np.stack([log_probabilities(*side) for side in zip(scores, sides, strict=True)])
    listed = (ranks > 0) & (True if shown is None else shown)
    first = [[item for item in np.argsort(ranks[n]).tolist() if listed[n, item]][: len(pinned)] for n in (0, 1)]
    newcomers = [item for item in first[1] if item not in {*first[0], *pinned}]
    items = np.array([*pinned, *newcomers], np.int64)
    is_ranked = (ranks[:, items] > 0).all(axis=0)
    old, new = (np.where(is_ranked, side[items], np.nan) for side in logs)
    return RankChanges(items, np.arange(len(items)) < len(pinned), ranks[0][items], ranks[1][items], new - old)


def _check_position(history: History, position: int) -> None:
    if not 0 <= position < len(history):
        raise DataError(f"A position in this history lies between 0 and {len(history) - 1}; got {position}.")
