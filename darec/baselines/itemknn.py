"""ItemKNN: an item is recommended when it resembles the items of the history in who chose it, or in what followed.

Two similarities of items i and j, n_i and n_j their numbers of training interactions:

    together   users with both / sqrt(n_i n_j)
    next       sum over users and gaps g = 1..10 of 1/g where j follows i after g steps / sqrt(n_i n_j)

The first is the cosine of the items' user vectors, the second a smoothed Markov chain. Each item keeps its nearest k.
A history scores an item with the sum of their similarities, the entry a steps back weighted by decay^a: decay 1 weighs
all alike, decay 0 leaves the last item alone. Kind, k and decay are chosen on validation.

Source: Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darec.data.splits import Split
from darec.evaluation.metrics import ndcg
from darec.evaluation.protocol import rank_cases
from darec.model.collaborative import left_pad

KINDS = ("together", "next")
NEIGHBOURS = (20, 100, 500)
DECAYS = (0.0, 0.5, 0.8, 0.9, 1.0)
_MAX_ITEMS = 200  # most recent items of a history that count
_MAX_GAP = 10
_BLOCK = 512  # items whose similarities are dense at a time


class ItemKNN:
    """Nearest neighbours of the items in the history.

    Args:
        neighbours: [N, k] int64 item indices.
        similarities: [N, k] float32, zero where an item has fewer neighbours.
        decay: weight of an entry relative to the one after it, in 0..1.
        values: what else to keep of how it was made.
    """

    def __init__(self, neighbours: Tensor, similarities: Tensor, decay: float, values: dict[str, Any]) -> None:
        self.neighbours, self.similarities, self.decay, self.values = neighbours, similarities, decay, values

    def score(self, histories: Sequence[Sequence[int | str]]) -> np.ndarray:
        """[B, N] float32, zero for an item that is nobody's neighbour; titles are skipped."""
        items = left_pad([[i for i in history if not isinstance(i, str)] for history in histories], _MAX_ITEMS)
        weights = recency_weights(items, self.decay)[..., None] * self.similarities[items.clamp(min=0)]  # [B, T, k]
        scores = torch.zeros(len(items), len(self.neighbours))
        return scores.scatter_add_(1, self.neighbours[items.clamp(min=0)].flatten(1), weights.flatten(1)).numpy()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values from which `from_state` makes the scorer again."""
        tensors = {"neighbours": self.neighbours, "similarities": self.similarities}
        return tensors, {"decay": self.decay, **self.values}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], values: dict[str, Any]) -> "ItemKNN":
        """Inverse of `state`."""
        rest = {name: value for name, value in values.items() if name != "decay"}
        return cls(tensors["neighbours"], tensors["similarities"], values["decay"], rest)


def train_itemknn(split: Split, on_epoch: Callable[[dict[str, Any]], None]) -> ItemKNN:
    """Choose kind, k and decay on validation; every choice tried is reported as {stage, setting, ndcg@10, seconds}."""
    best, best_value = None, -1.0
    for kind in KINDS:
        neighbours, similarities = nearest_neighbours(split, kind, min(max(NEIGHBOURS), split.num_items))
        for k in NEIGHBOURS:
            for decay in DECAYS:
                start = time.perf_counter()
                values = {"kind": kind, "k": k}
                scorer = ItemKNN(neighbours[:, :k].contiguous(), similarities[:, :k].contiguous(), decay, values)
                value = ndcg(rank_cases(scorer, split, "valid")["rank"].to_numpy(), 10)
                setting = {**values, "decay": decay}
                seconds = time.perf_counter() - start
                on_epoch({"stage": "grid", "setting": setting, "ndcg@10": value, "seconds": seconds})
                if value > best_value:
                    best, best_value = scorer, value
    assert best is not None
    return best


def nearest_neighbours(split: Split, kind: str, k: int) -> tuple[Tensor, Tensor]:
    """The k most similar items of each item, most similar first.

    Args:
        split: its training part.
        kind: `together` or `next`.
        k: at most N.

    Returns:
        [N, k] int64 item indices and [N, k] float32 similarities.
    """
    pairs = _together(split) if kind == "together" else _next(split)
    root = torch.from_numpy(split.popularity).clamp(min=1).sqrt().float()
    found = []
    for first in range(0, split.num_items, _BLOCK):
        block = pairs(first, min(first + _BLOCK, split.num_items))  # [block, N]
        rows = torch.arange(len(block))
        block[rows, first + rows] = 0  # an item is no neighbour of its own
        found.append((block / root[first : first + len(block), None] / root).topk(k))
    return torch.cat([part.indices for part in found]), torch.cat([part.values for part in found])


def recency_weights(items: Tensor, decay: float) -> Tensor:
    """[B, T] left-padded items -> [B, T] float32: decay^a for the entry a places before the last, 0 for padding."""
    age = torch.arange(items.shape[1] - 1, -1, -1)
    return torch.tensor(decay) ** age * (items >= 0)


def _together(split: Split) -> Callable[[int, int], Tensor]:
    users = np.repeat(np.arange(len(split.train)), [len(history) for history in split.train])
    pairs = np.unique(np.stack([np.concatenate(split.train), users]), axis=1)  # who chose twice counts once
    shape = (split.num_items, len(split.train))
    by_item = torch.sparse_coo_tensor(
        torch.from_numpy(pairs), torch.ones(pairs.shape[1]), shape, check_invariants=True
    ).coalesce()

    def rows(first: int, end: int) -> Tensor:
        block = by_item.index_select(0, torch.arange(first, end)).to_dense()  # [block, users]
        return torch.sparse.mm(by_item, block.T).T

    return rows


def _next(split: Split) -> Callable[[int, int], Tensor]:
    before, after, weight = [], [], []
    for gap in range(1, _MAX_GAP + 1):
        before += [history[:-gap] for history in split.train]
        after += [history[gap:] for history in split.train]
        weight += [np.full(max(len(history) - gap, 0), 1 / gap, np.float32) for history in split.train]
    places = torch.from_numpy(np.stack([np.concatenate(before), np.concatenate(after)]))
    shape = (split.num_items, split.num_items)
    follows = torch.sparse_coo_tensor(
        places, torch.from_numpy(np.concatenate(weight)), shape, check_invariants=True
    ).coalesce()
    return lambda first, end: follows.index_select(0, torch.arange(first, end)).to_dense()
