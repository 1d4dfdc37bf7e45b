"""Collaborative knowledge enters the language model through its [ITEM] and [USER] tokens."""

import torch
from torch import Tensor, nn


class Injection(nn.Module):
    """Projections of CF knowledge to the backbone's width.

    Args:
        collaborative_size: d, width of CF embeddings and states.
        hidden_size: D, width of the backbone.
        scale: standard deviation of the backbone's own input embeddings, which the projections start at.
    """

    def __init__(self, collaborative_size: int, hidden_size: int, scale: float):
        super().__init__()
        self.item_norm = nn.LayerNorm(2 * collaborative_size)
        self.item = nn.Linear(2 * collaborative_size, hidden_size, bias=False)
        self.user_norm = nn.LayerNorm(collaborative_size)
        self.user = nn.Linear(collaborative_size, hidden_size, bias=False)
        nn.init.normal_(self.item.weight, std=scale / (2 * collaborative_size) ** 0.5)
        nn.init.normal_(self.user.weight, std=scale / collaborative_size**0.5)

    def at_items(self, embeddings: Tensor, states: Tensor, kept: Tensor) -> Tensor:
        """What [ITEM] k receives.

        Args:
            embeddings: [m, d] v of item k, zeros where the CF model does not know it.
            states: [m, d] z, the CF state after item k.
            kept: [m] bool; false where the sequence goes without the CF path.

        Returns:
            [m, D]; zeros where not kept.
        """
        return self.item(self.item_norm(torch.cat([embeddings, states], dim=-1))) * kept[:, None]

    def at_users(self, states: Tensor, kept: Tensor) -> Tensor:
        """What [USER] receives of the CF state before the window: [n, d], [n] bool -> [n, D]."""
        return self.user(self.user_norm(states)) * kept[:, None]
