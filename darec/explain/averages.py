"""Explanations averaged over a slice of users, one user at a time, so that a page can show them as they come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from darec.data.catalog import History
from darec.errors import DataError
from darec.evaluation.metrics import mean_with_interval
from darec.explain.attention import SHARES, MaskName, explain_attention, own_mask
from darec.explain.score_terms import TERMS, term_array
from darec.explain.scoring import check_history, check_items
from darec.model.recommender import DarecModel


@dataclass(frozen=True, eq=False)
class UserAverage:
    """What is known of a slice so far.

    Attributes:
        names: the columns: parts of attention, or terms of a score.
        values: [users, rows, columns] float64, one entry a user that is done; rows are layers for attention, and one
            for score terms.
        total: users in the slice.
    """

    names: tuple[str, ...]
    values: np.ndarray
    total: int

    @property
    def users(self) -> int:
        """Users that are done."""
        return len(self.values)

    def mean(self) -> np.ndarray:
        """[rows, columns] mean over the users that are done."""
        return self.values.mean(axis=0)

    def intervals(self, seed: int = 0) -> np.ndarray:
        """[rows, columns, 3]: mean, low and high of the 95 % bootstrap interval over users (of one user: no width)."""
        rows, columns = self.values.shape[1:]
        cells = [mean_with_interval(self.values[:, row, column], seed) for row, column in np.ndindex(rows, columns)]
        return np.array([[cell["mean"], cell["low"], cell["high"]] for cell in cells]).reshape(rows, columns, 3)


def average_attention_shares(
    model: DarecModel, histories: Sequence[History], mask: MaskName | None = None, *, collaborative: bool = True
) -> Iterator[UserAverage]:
    """Shares of attention by layer, as `Attention.shares`, after each user; without a mask, under the model's own.

    Raises:
        DataError: there are no users, or a history cannot be read.
    """
    _check(model, histories)
    mask = mask or own_mask(model)
    values: list[np.ndarray] = []
    for history in histories:
        values.append(explain_attention(model, history, mask, collaborative=collaborative).shares.astype(np.float64))
        yield UserAverage(SHARES, np.stack(values), len(histories))


def average_score_terms(
    model: DarecModel,
    histories: Sequence[History],
    items: Sequence[int],
    batch_size: int = 16,
    asked: np.ndarray | None = None,
) -> Iterator[UserAverage]:
    """Score terms of one item a user, such as the held-out one, centred as in `ScoreBreakdown`, after each batch.

    Args:
        model: in evaluation mode.
        histories: of the users.
        items: one a user.
        batch_size: users a forward pass.
        asked: [users] when each user asked, in seconds; at no known time if not given.

    Raises:
        DataError: there are no users, not one item a user, or a history or an item cannot be read.
    """
    _check(model, histories)
    check_items(model, items)
    if len(items) != len(histories):
        raise DataError(f"Each user needs one item; got {len(histories)} users and {len(items)} items.")
    values = np.empty((0, 1, len(TERMS)))
    for start in range(0, len(histories), batch_size):
        batch = list(histories[start : start + batch_size])
        then = None if asked is None else asked[start : start + batch_size]
        raw = term_array(model.asked(then).last_terms(batch))  # [n, 5, N]
        own = raw[np.arange(len(batch)), :, items[start : start + batch_size]] - raw.mean(axis=-1)
        values = np.concatenate([values, own[:, None]])
        yield UserAverage(TERMS, values, len(histories))


def _check(model: DarecModel, histories: Sequence[History]) -> None:
    if not len(histories):
        raise DataError("An average needs at least one user; this slice has none. Choose a wider one.")
    for history in histories:
        check_history(model, history)
