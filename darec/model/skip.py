"""The short way from the items of a history to the score: past the language model.

What a history's items have in common, the words and how often and how lately they came, is a sum over their features.
Attention can learn to carry it from layer to layer, but slowly; here it need not be learned.
"""

import torch
from torch import Tensor, nn

_HALVED_AFTER = (0.25, 1.5, 12.0)  # items: what came last, lately, and all along; training moves them
_RANK = 16  # of the maps; full ones learn the training items by heart


class Skip(nn.Module):
    """Sums of the features of the items so far, each item counting for less the longer ago it was.

    Args:
        width: F, features of an item, of length F ** 0.5 on average.
    """

    def __init__(self, width: int):
        super().__init__()
        sums = len(_HALVED_AFTER)
        self.decay = nn.Parameter(torch.tensor([0.5 ** (1 / items) for items in _HALVED_AFTER]).logit())
        # Texts that are alike are likely from the start.
        self.shares = nn.Parameter(torch.full((sums, width), 2 / max(1, width)))
        self.down = nn.Parameter(0.01 * torch.randn(sums, width, _RANK))
        self.up = nn.Parameter(torch.zeros(sums, _RANK, width))

    def forward(self, features: Tensor, present: Tensor, at: Tensor) -> Tensor:
        """What speaks after some items.

        Args:
            features: [n, W, F] of the items of n histories, oldest first.
            present: [n, W] bool; false where there is no item.
            at: [n, S] int64, columns of the items after which it is asked for.

        Returns:
            [n, S, F]; what belongs to column w depends on columns up to w.
        """
        ago = at[:, :, None] - torch.arange(features.shape[1], device=features.device)
        spoken = features.new_zeros(*at.shape, features.shape[2])
        for decay, share, down, up in zip(torch.sigmoid(self.decay), self.shares, self.down, self.up, strict=True):
            weights = torch.where((ago >= 0) & present[:, None], decay ** ago.clamp(min=0), 0.0)
            # Features differ, so their sums grow as roots do.
            sums = weights @ features / weights.sum(dim=2, keepdim=True).clamp(min=1e-6).sqrt()
            spoken = spoken + sums * share + sums @ down @ up
        return spoken
