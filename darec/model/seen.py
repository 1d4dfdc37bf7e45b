"""Items that a user has had are no answers: where evaluation sets them aside, training does so too.

Otherwise a model learns to push away what it has just read, and with it all that is like it.
"""

import torch
from torch import Tensor


def read_up_to(items: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[M, W] int64: the items of each place's row up to the place itself; -1 for what comes later.

    Args:
        items: [n, W] int64, oldest first.
        rows, columns: [M] int64, the places.
    """
    later = torch.arange(items.shape[1], device=items.device) > columns[:, None]
    return items[rows].masked_fill(later, -1)


def set_seen_aside(scores: Tensor, seen: Tensor, targets: Tensor) -> Tensor:
    """The scores with -inf for what was seen before; a target that comes again stays.

    Args:
        scores: [M, C] float.
        seen: [M, W] int64 candidates, in 0..C-1; -1 is none.
        targets: [M] int64 candidates.

    Returns:
        [M, C].
    """
    rows, columns = torch.nonzero((seen >= 0) & (seen != targets[:, None]), as_tuple=True)
    return scores.index_put((rows, seen[rows, columns]), scores.new_tensor(-torch.inf))
