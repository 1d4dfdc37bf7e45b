"""GRU4Rec with full cross-entropy: a recurrent model over item identities.

Source: Hidasi et al., Session-based recommendations with recurrent neural networks, ICLR 2016; trained on whole
histories with softmax cross-entropy over the catalogue not yet read in the place of sampled ranking losses.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darec.baselines.sasrec import NextItemScorer
from darec.config import CollaborativeSettings
from darec.data.splits import Split
from darec.model.collaborative import NextItemModel
from darec.training.collaborative import train_collaborative


class GRU4Rec(NextItemModel):
    """A gated recurrent unit that reads one item a step.

    Args:
        num_items: N.
        settings: width, layers and dropout; heads play no part.
        text_features: [N, F] float, frozen, or None.
        known: [N] bool, the items with training interactions; None means all.
    """

    def __init__(
        self,
        num_items: int,
        settings: CollaborativeSettings,
        text_features: Tensor | None = None,
        known: Tensor | None = None,
    ) -> None:
        d, layers = settings.hidden_size, settings.num_layers
        super().__init__(num_items, d, text_features, known)
        self.gru = nn.GRU(d, d, layers, batch_first=True, dropout=settings.dropout if layers > 1 else 0.0)
        self.out = nn.Linear(d, d)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, items: Tensor) -> Tensor:
        """[B, T] left-padded items, -1 skipped -> [B, T, d] states after each column; zero before the first item."""
        items = self.readable(items)
        count = (items >= 0).cumsum(1)
        order = (items < 0).int().argsort(dim=1, stable=True)  # items first: a step of padding would move the state
        inputs = F.embedding(items.gather(1, order).clamp(min=0), self.item_embeddings())
        states, _ = self.gru(self.dropout(inputs * self.embeddings.shape[1] ** 0.5))
        states = self.out(self.dropout(states))
        states = states.gather(1, (count - 1).clamp(min=0)[..., None].expand_as(states))
        return states * (count > 0)[..., None]


class GRU4RecScorer(NextItemScorer):
    """Scores with GRU4Rec."""

    model_class = GRU4Rec


def train_gru4rec(
    split: Split,
    settings: CollaborativeSettings,
    *,
    seed: int,
    device: str,
    on_epoch: Callable[[dict[str, Any]], None],
) -> GRU4RecScorer:
    """Draw a model by the seed and train it."""
    torch.manual_seed(seed)
    model = GRU4Rec(split.num_items, settings, known=torch.from_numpy(split.popularity > 0))
    train_collaborative(model, split, settings, seed=seed, device=device, on_epoch=on_epoch)
    return GRU4RecScorer(model, settings)
