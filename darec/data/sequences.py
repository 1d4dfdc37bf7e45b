"""From histories to tokens: the one structure from which masks, item roll-ups and token colours are derived.

A history i_1..i_S becomes

    [BOS] [USER] <words of item 1> [ITEM] <words of item 2> [ITEM] ... <words of item S> [ITEM]

Several such sequences may be packed in one row.

    symbol  meaning                     shape
    R       rows                        -
    T       tokens in a row             -
    n       sequences in the batch      n >= R
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Self

import numpy as np
import torch
from torch import Tensor


class Kind(IntEnum):
    """What a token is."""

    PREFIX = 0
    TEXT = 1
    ITEM = 2
    PAD = 3


class Soft(IntEnum):
    """Soft tokens: vectors of the model's own, written in `input_ids` as -1 - soft, so never a word's id."""

    BOS = 0
    USER = 1
    ITEM = 2
    MASK = 3

    @property
    def input_id(self) -> int:
        """Its code in `input_ids`."""
        return -1 - self


PREFIX_SPAN = -1
PAD_SPAN = -2
NO_SEQUENCE = -1


@dataclass(frozen=True, eq=False)
class PackedSequences:
    """A batch of packed token sequences.

    Attributes:
        input_ids: [R, T] int64; a word's id in the tokenizer, or a soft token's code, below 0.
        sequence: [R, T] int64; which of the n sequences the token belongs to, -1 for padding.
        span: [R, T] int64; the item's position in its window from 0, -1 for the prefix, -2 for padding.
        kind: [R, T] int64 of `Kind`.
        position_ids: [R, T] int64; the position within the token's own sequence.
        cut_items: [n] int64; how many of each sequence's oldest items did not fit and were left out.
    """

    input_ids: Tensor
    sequence: Tensor
    span: Tensor
    kind: Tensor
    position_ids: Tensor
    cut_items: Tensor

    def to(self, device: str | torch.device, non_blocking: bool = False) -> Self:
        """The same batch on another device."""
        return type(self)(*(getattr(self, field.name).to(device, non_blocking=non_blocking) for field in fields(self)))

    def find(self, soft: Soft) -> tuple[Tensor, Tensor]:
        """(rows, columns), each [m] int64, of every such soft token, in row order."""
        rows, columns = torch.nonzero(self.input_ids == soft.input_id, as_tuple=True)
        return rows, columns


def pack_histories(texts: Sequence[Sequence[Sequence[int]]], max_tokens: int) -> PackedSequences:
    """Lay out histories, the most recent items first in line for the space there is.

    Args:
        texts: for each history its items' word ids, oldest item first.
        max_tokens: the most tokens one sequence may have; at least 3.
    """
    cuts = [_items_to_cut(items, max_tokens) for items in texts]
    sequences = [_history_tokens(items[cut:], max_tokens) for items, cut in zip(texts, cuts, strict=True)]
    return _pack(sequences, cuts)


def pack_items(texts: Sequence[Sequence[int]], max_tokens: int) -> PackedSequences:
    """Lay out single items, words only, each a sequence of its own with one span: the input of the item encoding."""
    sequences = []
    for text in texts:
        ids = np.asarray(text[:max_tokens], np.int64)
        sequences.append(np.stack([ids, np.zeros_like(ids), np.full_like(ids, Kind.TEXT)]))
    return _pack(sequences, [0] * len(sequences))


def _items_to_cut(items: Sequence[Sequence[int]], max_tokens: int) -> int:
    room = max_tokens - 2
    for kept, text in enumerate(reversed(items)):
        room -= len(text) + 1
        if room < 0:
            return len(items) - max(kept, 1)  # the newest item always stays; its words are cut instead
    return 0


def _history_tokens(items: Sequence[Sequence[int]], max_tokens: int) -> np.ndarray:
    """[3, length]: input_ids, span and kind of one sequence."""
    ids = [Soft.BOS.input_id, Soft.USER.input_id]
    spans = [PREFIX_SPAN, PREFIX_SPAN]
    kinds = [int(Kind.PREFIX), int(Kind.PREFIX)]
    for span, text in enumerate(items):
        words = list(text)[: max_tokens - 3]
        ids += [*words, Soft.ITEM.input_id]
        spans += [span] * (len(words) + 1)
        kinds += [int(Kind.TEXT)] * len(words) + [int(Kind.ITEM)]
    return np.array([ids, spans, kinds], np.int64)


def _pack(sequences: Sequence[np.ndarray], cuts: Sequence[int]) -> PackedSequences:
    """Put each sequence, longest first, into the first row that has room; the longest one sets the width of a row."""
    width = max((tokens.shape[1] for tokens in sequences), default=0)
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(sequences)), key=lambda i: -sequences[i].shape[1]):
        length = sequences[number].shape[1]
        row = next((r for r, free in enumerate(room) if free >= length), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(number)
        room[row] -= length
    shape = (len(rows), width)
    input_ids, span, kind = np.zeros(shape, np.int64), np.full(shape, PAD_SPAN), np.full(shape, int(Kind.PAD))
    sequence, position = np.full(shape, NO_SEQUENCE), np.zeros(shape, np.int64)
    for row, members in enumerate(rows):
        start = 0
        for number in members:
            place = (row, slice(start, start + sequences[number].shape[1]))
            input_ids[place], span[place], kind[place] = sequences[number]
            sequence[place] = number
            position[place] = np.arange(sequences[number].shape[1])
            start = place[1].stop
    arrays = (input_ids, sequence, span, kind, position, np.array(cuts, np.int64))
    return PackedSequences(*(torch.from_numpy(array.astype(np.int64)) for array in arrays))
