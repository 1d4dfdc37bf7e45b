"""Batches of histories: what the language model reads of each, and what the CF model reads of it.

The language model reads a window, the S most recent items; the CF model reads up to C items, those before it too.

    symbol  meaning
    n       histories in the batch
    S       items in the longest window
    C       items the CF model reads at most
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor

from darec.data.catalog import History
from darec.data.sequences import PackedSequences, pack_histories

NO_ITEM = -1


@dataclass(frozen=True, eq=False)
class Windows:
    """A batch of n histories.

    Attributes:
        packed: the windows as tokens.
        items: [n, S] int64 item index at each span; -1 for a title new to the catalogue, and where there is no item.
        targets: [n, S] int64 index of the item that came after each span; -1 where there is none to predict.
        lengths: [n] int64, items in each window.
        collaborative_items: [n, W] int64 left-padded with -1, W > S: the history as the CF model reads it, to its end.
    """

    packed: PackedSequences
    items: Tensor
    targets: Tensor
    lengths: Tensor
    collaborative_items: Tensor

    def column_of(self, sequence: Tensor, span: Tensor) -> Tensor:
        """[m] int64: where `collaborative_items` holds this span; span -1 is what lies just before the window."""
        return self.collaborative_items.shape[1] - self.lengths[sequence] + span

    def seen_at(self, sequence: Tensor, span: Tensor) -> Tensor:
        """[m, S + W] int64: of all that is read, the items up to and including this span; -1 elsewhere."""
        spans = torch.arange(self.items.shape[1], device=sequence.device)
        columns = torch.arange(self.collaborative_items.shape[1], device=sequence.device)
        in_window = self.items[sequence].masked_fill(spans > span[:, None], NO_ITEM)
        later = columns > self.column_of(sequence, span)[:, None]
        return torch.cat([in_window, self.collaborative_items[sequence].masked_fill(later, NO_ITEM)], dim=1)

    def to(self, device: str | torch.device, non_blocking: bool = False) -> Self:
        """The same batch on another device."""
        return type(self)(*(getattr(self, field.name).to(device, non_blocking=non_blocking) for field in fields(self)))


@dataclass(frozen=True)
class WindowBuilder:
    """Turns histories into batches.

    Attributes:
        item_tokens: for each of the N items its word ids inside a history.
        tokenize: word ids of a title that the catalogue has never seen.
        max_items: S at most.
        max_tokens: tokens of one sequence at most (the backbone's positions).
        max_collaborative_items: C, how many items the CF model reads at most.
    """

    item_tokens: Sequence[Sequence[int]]
    tokenize: Callable[[str], list[int]]
    max_items: int
    max_tokens: int
    max_collaborative_items: int

    def build(self, histories: Sequence[History], following: Sequence[int] | None = None) -> Windows:
        """Batch these histories.

        Args:
            histories: none empty.
            following: for training, the item that came after each history's last one; then every boundary of the
                window has its target.
        """
        texts = [[self._tokens(item) for item in history[-self.max_items :]] for history in histories]
        packed = pack_histories(texts, self.max_tokens)
        lengths = np.array([len(window) for window in texts]) - packed.cut_items.numpy()
        indices = [[NO_ITEM if isinstance(item, str) else int(item) for item in history] for history in histories]
        width = max(lengths.max() + 1, min(self.max_collaborative_items, max(map(len, histories))))
        items = np.full((len(histories), lengths.max()), NO_ITEM)
        targets = np.full_like(items, NO_ITEM)
        collaborative_items = np.full((len(histories), width), NO_ITEM)
        for row, (history, length) in enumerate(zip(indices, lengths, strict=True)):
            items[row, :length] = history[-length:]
            if following is not None:
                targets[row, :length] = [*history[-length:][1:], following[row]]
            recent = history[-self.max_collaborative_items :]
            collaborative_items[row, width - len(recent) :] = recent
        arrays = (items, targets, lengths, collaborative_items)
        return Windows(packed, *(torch.from_numpy(array.astype(np.int64)) for array in arrays))

    def _tokens(self, item: int | str) -> Sequence[int]:
        return self.tokenize(item) if isinstance(item, str) else self.item_tokens[item]


def draw_run(items: np.ndarray, max_items: int, rng: np.random.Generator) -> np.ndarray:
    """Up to `max_items` items of a user that follow each other, at random; all where there are no more."""
    start = rng.integers(max(len(items) - max_items, 0) + 1)
    return items[start : start + max_items]


def draw_window(items: np.ndarray, max_items: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A random (history, following item) of a user: a full window wherever the user has that many items.

    Args:
        items: [length >= 2] item indices, oldest first.
    """
    end = int(rng.integers(min(max_items, len(items) - 1), len(items)))
    return items[:end], int(items[end])
