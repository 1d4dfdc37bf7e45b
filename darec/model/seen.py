"""Items that a user has had are no answers: where evaluation sets them aside, training does so too.

Otherwise a model learns to push away what it has just read, and with it all that is like it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def set_seen_aside(scores: Tensor, seen: Tensor, targets: Tensor) -> Tensor:
    """The scores with -inf for what was seen before; a target that comes again stays.

    Args:
        scores: [M, C] float.
        seen: [M, W] int64 candidates, in 0..C-1; -1 is none.
        targets: [M] int64 candidates.

    Returns:
        [M, C].
    """
    nowhere = scores.shape[1]
    counts = (seen >= 0) & (seen != targets[:, None])
    return F.pad(scores, (0, 1)).scatter(1, torch.where(counts, seen, nowhere), -torch.inf)[:, :nowhere]
