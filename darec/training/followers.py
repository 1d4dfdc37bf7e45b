"""The linear model behind what often comes next, in closed form.

    symbol  meaning
    x       [N] which items a history holds so far, 0 or 1
    y       [N] the one that came next, 1, and 0 for all others
    B       [N, N] coefficients that make x B closest to y over all places of all histories, none large without need:

    B = (sum of x x^T + ridge I)^-1 (sum of x y^T)

(A session-aware linear item-item model: Choi et al., Session-aware linear item-item models for session-based
recommendation, WWW 2021; there with weights for time and for how often an item was chosen.)
"""

import numpy as np
import torch
from torch import Tensor

from darec.data.splits import Split

RIDGE = 30.0  # places; a pair that came once or twice weighs little
MOST = 10_000  # items that take part, the most taken ones; of so many a matrix has 0.8 GB, and four are needed at once
_BLOCK = 256  # histories at a time


@torch.no_grad()
def fit_followers(split: Split, max_items: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Solve for the items that were taken in training, the `MOST` most taken at most.

    Args:
        split: its training part.
        max_items: most recent items of a history that take part.
        device: torch name.

    Returns:
        [T] int64, those items in ascending order, and [T, T] float32, their part of B.
    """
    taken = np.argsort(-split.popularity, kind="stable")[:MOST]
    taken = np.sort(taken[split.popularity[taken] > 0])
    place = np.full(split.num_items, -1)
    place[taken] = np.arange(len(taken))
    size = len(taken)
    together = torch.zeros(size * size, dtype=torch.float64, device=device)
    following = torch.zeros_like(together)
    for start in range(0, len(split.train), _BLOCK):
        pairs, next_pairs = zip(
            *(_pairs(place[history[-max_items:]], size) for history in split.train[start : start + _BLOCK]), strict=True
        )
        for sums, found in ((together, pairs), (following, next_pairs)):
            cells, counts = (torch.from_numpy(np.concatenate(part)).to(device) for part in zip(*found, strict=True))
            sums.index_add_(0, cells, counts)
    gram = together.view(size, size)
    gram.diagonal().add_(RIDGE)
    solved = torch.cholesky_solve(following.view(size, size), torch.linalg.cholesky(gram))
    return torch.from_numpy(taken).to(device), solved.float()


def _pairs(history: np.ndarray, size: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """What one history adds to the sums of x x^T and of x y^T: cells of [size, size], row by row, and what each gets.

    Args:
        history: [L] int; -1 for an item that takes no part.
    """
    items, first = np.unique(history, return_index=True)
    items, first = items[items >= 0], first[items >= 0]
    # Two items are both there from the later of their first places on, at all places but the last.
    both = len(history) - 1 - np.maximum(first[:, None], first)
    gram = (items[:, None] * size + items).ravel(), both.ravel().astype(np.float64)
    before = (first[:, None] < np.arange(len(history))) & (history >= 0)
    rows, columns = np.nonzero(before)
    return gram, (items[rows] * size + history[columns], np.ones(len(rows)))
