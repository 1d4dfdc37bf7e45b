"""SASRec, the collaborative (CF) model: a small causal transformer over item identities alone.

B histories, T columns, N items, d hidden size, H heads. Histories are left-padded: the last column is the most recent
item, -1 is padding or an item the model does not know.

Source: Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018; trained with softmax cross-entropy over
the catalogue not yet read instead of one sampled negative, and with positions as learned distances instead of places.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darec.config import CollaborativeSettings
from darec.model.seen import read_up_to, set_seen_aside


class NextItemModel(nn.Module):
    """What every model of item identities shares: item embeddings that serve as input and as output, and the loss.

    A subclass gives `forward`: [B, T] items -> [B, T, d] states after each column.

    Args:
        num_items: N.
        hidden_size: d.
        text_features: [N, F] float, frozen. A learned projection of them is added to the item embeddings, so that an
            item without training interactions is known by its text.
        known: [N] bool, the items with training interactions; None means all. The others have no embedding of their
            own and are no negatives; without text features they are skipped in a history.
    """

    known: Tensor
    text_features: Tensor | None

    def __init__(self, num_items: int, hidden_size: int, text_features: Tensor | None, known: Tensor | None) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(num_items, hidden_size) * 0.02)
        self.register_buffer("known", torch.ones(num_items, dtype=torch.bool) if known is None else known.bool())
        self.register_buffer("text_features", text_features)
        if text_features is not None:
            self.text_projection = nn.Linear(text_features.shape[1], hidden_size, bias=False)

    def item_embeddings(self) -> Tensor:
        """[N, d]: zero for items that are not known, plus the projection of the text features where there are any."""
        embeddings = self.embeddings * self.known[:, None]
        return embeddings if self.text_features is None else embeddings + self.text_projection(self.text_features)

    def score(self, states: Tensor) -> Tensor:
        """[..., d] states -> [..., N] logits of the next item."""
        return states @ self.item_embeddings().T

    def loss(self, items: Tensor) -> Tensor:
        """Mean cross-entropy of each next item among all known ones that were not read before it.

        Args:
            items: [B, T + 1] int64, left-padded: the first T columns are read, the last T predicted.

        Returns:
            Scalar; 0 where there is nothing to predict.
        """
        started = (self.readable(items[:, :-1]) >= 0).cumsum(1) > 0
        targets = items[:, 1:]
        at = started & (targets >= 0) & self.known[targets.clamp(min=0)]
        # The bias leaves unknown items out of the softmax without another pass over [places, N].
        bias = torch.zeros_like(self.embeddings[:, 0]).masked_fill(~self.known, -torch.inf)
        logits = F.linear(self(items[:, :-1])[at], self.item_embeddings(), bias).float()
        rows, columns = torch.nonzero(at, as_tuple=True)
        logits = set_seen_aside(logits, read_up_to(items[:, :-1], rows, columns), targets[at])
        return F.cross_entropy(logits, targets[at], reduction="sum") / at.sum().clamp(min=1)

    def readable(self, items: Tensor) -> Tensor:
        """`items` of any shape with -1 in the place of those that have no embedding."""
        if self.text_features is not None:
            return items
        return items.masked_fill(~self.known[items.clamp(min=0)], -1)


class SASRec(NextItemModel):
    """A pre-norm transformer that reads the items known so far and predicts the next one.

    Args:
        num_items: N.
        settings: shape and dropout.
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
        d, heads = settings.hidden_size, settings.num_heads
        super().__init__(num_items, d, text_features, known)
        self.layers = nn.ModuleList(
            Layer(d, heads, settings.dropout, settings.max_items) for _ in range(settings.num_layers)
        )
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, items: Tensor) -> Tensor:
        """States after each column.

        Args:
            items: [B, T] int64, left-padded, -1 for padding. Unknown items and -1 are skipped wherever they stand.

        Returns:
            [B, T, d]. The state at column t depends on the known items at columns <= t only; at a skipped column it
            is the state after the last known item before, and zero where there is none.
        """
        items, column, count = compact(self.readable(items))
        length = items.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=items.device).tril()
        alone = torch.eye(length, dtype=torch.bool, device=items.device)  # padding sees itself, so it is never NaN
        allowed = (causal & (items >= 0)[:, None, :] | alone)[:, None]  # [B, 1, T, T]
        states = F.embedding(items.clamp(min=0), self.item_embeddings()) * self.embeddings.shape[1] ** 0.5
        states = self.dropout(states)
        for layer in self.layers:
            states = layer(states, allowed)
        states = self.norm(states).gather(1, column[..., None].expand_as(states))
        return states * (count > 0)[..., None]


class Layer(nn.Module):
    """A pre-norm transformer layer whose attention has a learned bias for each head and distance."""

    def __init__(self, d: int, heads: int, dropout: float, max_distance: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        # Recent items matter most: heads begin with a steep to a gentle preference for them, and learn from there.
        slopes = torch.logspace(math.log10(0.5), math.log10(0.05), heads)
        self.distance_bias = nn.Parameter(-slopes[:, None] * torch.arange(max_distance))
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * d, d))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, allowed: Tensor) -> Tensor:
        """[B, T, d] states and a [B, 1, T, T] bool mask, true where a query (row) may see a key -> [B, T, d]."""
        batch, length, d = states.shape
        query, key, value = self.qkv(self.attention_norm(states)).view(batch, length, 3, self.heads, -1).unbind(2)
        columns = torch.arange(length, device=states.device)
        distance = (columns[:, None] - columns).clamp(0, self.distance_bias.shape[1] - 1)
        bias = self.distance_bias[:, distance].masked_fill(~allowed, -torch.inf)  # [B, H, T, T]
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=bias.to(query.dtype)
        )
        states = states + self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, d)))
        return states + self.dropout(self.mlp(self.mlp_norm(states)))


def compact(items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Push the items of each row to the right, so that -1 stands only before them.

    Args:
        items: [B, T] int64, -1 anywhere.

    Returns:
        The rows without gaps, [B, T] int64; for each old column the new column of the last item at or before it,
        [B, T] int64 in 0..T-1; and how many items stand at or before it, [B, T] int64. Where none do, the new column
        is a padded one.
    """
    is_item = items >= 0
    order = is_item.int().argsort(dim=1, stable=True)
    count = is_item.cumsum(1)
    return items.gather(1, order), items.shape[1] - 1 - count[:, -1:] + count, count


def left_pad(histories: Sequence[Sequence[int] | np.ndarray], max_items: int) -> Tensor:
    """The last `max_items` items of each history as [B, T] int64, left-padded with -1; T >= 1 fits the longest."""
    recent = [np.asarray(history[-max_items:], dtype=np.int64) for history in histories]
    padded = np.full((len(recent), max([1, *map(len, recent)])), -1, np.int64)
    for row, history in zip(padded, recent, strict=True):
        row[len(row) - len(history) :] = history
    return torch.from_numpy(padded)
