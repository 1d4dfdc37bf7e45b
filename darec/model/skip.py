"""The short way from the items of a history to the state that ranks: past the language model.

What a history's items have in common, the words and how often and how lately they came, is a sum over their encodings.
Attention can learn to carry it from layer to layer, but slowly; here it need not be learned.
"""

import torch
from torch import Tensor, nn

_HALVED_AFTER = (0.25, 1.5, 12.0)  # items: what came last, lately, and all along; training moves them


class Skip(nn.Module):
    """Sums of the encodings of the items so far, each item counting for less the longer ago it was.

    Args:
        width: D, of encodings and states.
    """

    def __init__(self, width: int):
        super().__init__()
        self.decay = nn.Parameter(torch.tensor([0.5 ** (1 / items) for items in _HALVED_AFTER]).logit())
        self.shares = nn.Parameter(torch.full((len(_HALVED_AFTER), width), 1 / len(_HALVED_AFTER)))

    def forward(self, encodings: Tensor, sequence: Tensor, span: Tensor) -> Tensor:
        """What the state after each item receives.

        Args:
            encodings: [M, D] of the item at each boundary.
            sequence: [M] int64, the history it belongs to.
            span: [M] int64, its place in it.

        Returns:
            [M, D]; row m depends on the items of the same history at places up to span[m].
        """
        ago = span[:, None] - span
        before = (sequence[:, None] == sequence) & (ago >= 0)
        received = torch.zeros_like(encodings)
        for decay, share in zip(torch.sigmoid(self.decay), self.shares, strict=True):
            weights = torch.where(before, decay ** ago.clamp(min=0), 0.0)
            weights = weights / weights.sum(dim=1, keepdim=True).sqrt()  # encodings differ, so sums grow as roots do
            received = received + weights @ encodings * share
        return received
