"""What often comes next: of each item the few that most often follow it, all else that was chosen being equal.

A CF model of a few dimensions knows what is alike, and blurs what belongs to one item alone: after the first part of a
saga comes the second, however long ago the first was.
"""

import torch
from torch import Tensor, nn


class Followers(nn.Module):
    """For each item of a history its followers, weighted by how much likelier it makes them.

    Args:
        num_items: N.
        kept: K, followers of an item.
    """

    items: Tensor
    weights: Tensor
    trust: Tensor

    def __init__(self, num_items: int, kept: int):
        super().__init__()
        kept = min(kept, num_items)
        self.register_buffer("items", torch.zeros(num_items, kept, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(num_items, kept))  # shares in a probability
        # How much of it scores get: none in training, whose targets it knows; after that validation says how much.
        self.register_buffer("trust", torch.zeros(()))

    def keep(self, items: Tensor, coefficients: Tensor) -> None:
        """Keep the K largest weights of each item; those below 0 become 0.

        Args:
            items: [T] int64; those that have followers and may be some. All others have none.
            coefficients: [T, T]; how much likelier the row's item makes the column's to come next.
        """
        largest = coefficients.topk(min(self.items.shape[1], len(items)), dim=1)
        columns = torch.arange(largest.indices.shape[1], device=items.device)
        self.weights.zero_()
        self.items[items[:, None], columns] = items[largest.indices].int()
        self.weights[items[:, None], columns] = largest.values.clamp(min=0)

    def forward(self, read: Tensor) -> Tensor:
        """[M, N] float: sums over the items read, each counted once, whenever it came.

        Args:
            read: [M, W] int64 items; -1 is none.
        """
        known = read.clamp(min=0)
        weights = self.weights[known] * self._first(read)[..., None]
        sums = self.weights.new_zeros(len(read), len(self.items))
        return sums.scatter_add_(1, self.items[known].long().flatten(1), weights.flatten(1))

    @staticmethod
    def _first(read: Tensor) -> Tensor:
        """[M, W] float: 1 where an item comes for the first time."""
        ordered, order = read.sort(dim=1, stable=True)
        new = torch.ones_like(ordered, dtype=torch.bool)
        new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        return torch.empty_like(new).scatter_(1, order, new & (ordered >= 0)).float()
