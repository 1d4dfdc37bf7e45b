"""What the order of a history is worth to one recommendation. For a whole part of the data, and NDCG@10, see
`darec.evaluation.protocol.shuffle_test`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from darec.data.catalog import History
from darec.errors import DataError
from darec.explain.scoring import candidates_after, check_history, check_items, ranks_among, scores_after
from darec.model.recommender import DarecModel


@dataclass(frozen=True, eq=False)
class OrderSensitivity:
    """Ranks under shuffled histories, paired: every item is ranked under the same shuffles.

    Attributes:
        items: [m] int64 item indices.
        permutations: [n, length] int64; entry p of row i says which entry of the history stood at place p.
        rank: [m] int64 in the given order, from 1; 0 for items that are no candidates.
        shuffled: [n, m] int64 ranks under each shuffle.
    """

    items: np.ndarray
    permutations: np.ndarray
    rank: np.ndarray
    shuffled: np.ndarray

    def median_change(self) -> np.ndarray:
        """[m] float64: median over the shuffles of shuffled rank - rank; above 0 where order helps the item."""
        return np.median(self.shuffled - self.rank, axis=0)


def shuffle_history(
    model: DarecModel,
    history: History,
    items: Sequence[int],
    *,
    shuffles: int = 20,
    seed: int = 0,
    collaborative: bool = True,
    exclude_seen: bool = True,
    batch_size: int = 8,
) -> OrderSensitivity:
    """Shuffle a history again and again; the whole of it, what lies before the window too.

    Args:
        model: in evaluation mode.
        history: oldest first, two entries or more.
        items: whose ranks are wanted.
        shuffles: n, at least 1. A shuffle may be the order itself, as a fair draw must.
        seed: of the shuffles.
        collaborative: whether the CF path takes part.
        exclude_seen: leave the items of the history out of the ranks.
        batch_size: histories a forward pass.

    Raises:
        DataError: the history cannot be read or has one entry only, an item is none of the catalogue's, or `shuffles`
            is below 1.
    """
    check_history(model, history)
    check_items(model, items)
    if len(history) < 2:
        raise DataError("Order needs a history of two items or more; this one has 1. Add an item.")
    if shuffles < 1:
        raise DataError(f"The number of shuffles must be at least 1; got {shuffles}.")
    random = np.random.default_rng(seed)
    permutations = np.stack([random.permutation(len(history)) for _ in range(shuffles)])
    histories = [list(history), *([history[place] for place in order] for order in permutations.tolist())]
    batches = (histories[start : start + batch_size] for start in range(0, len(histories), batch_size))
    scores = np.concatenate([scores_after(model, batch, collaborative=collaborative) for batch in batches])
    ranks = ranks_among(scores, candidates_after(model, history, exclude_seen=exclude_seen))[:, items]
    return OrderSensitivity(np.array(items, np.int64), permutations, ranks[0], ranks[1:])
