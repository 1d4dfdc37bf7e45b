from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from darec.data.sequences import Kind, PackedSequences, Soft, pack_histories
from darec.model.masking import (
    causal_mask,
    choose_hidden,
    context_mask,
    hide,
    intra_item_mask,
    mixed_mask,
    of_tokens,
)

# One row: BOS USER a b ITEM c ITEM | BOS USER d ITEM, and one of padding is left over.
TEXTS = [[[10, 11], [12]], [[13]], [[14, 15, 16, 17], [18, 19], [20]]]


def from_drawing(drawing: str) -> list[list[bool]]:
    return [[cell == "x" for cell in line.split()] for line in drawing.strip().splitlines()]


CAUSAL = """
    x . . . . . . . . . . .
    x x . . . . . . . . . .
    x x x . . . . . . . . .
    x x x x . . . . . . . .
    x x x x x . . . . . . .
    x x x x x x . . . . . .
    x x x x x x x . . . . .
    . . . . . . . x . . . .
    . . . . . . . x x . . .
    . . . . . . . x x x . .
    . . . . . . . x x x x .
    . . . . . . . . . . . .
"""
CONTEXT = """
    x . . . . . . . . . . .
    x x . . . . . . . . . .
    x x x x . . . . . . . .
    x x x x . . . . . . . .
    x x x x x . . . . . . .
    x x x x x x . . . . . .
    x x x x x x x . . . . .
    . . . . . . . x . . . .
    . . . . . . . x x . . .
    . . . . . . . x x x . .
    . . . . . . . x x x x .
    . . . . . . . . . . . .
"""
INTRA_ITEM = """
    x . . . . . . . . . . .
    . x . . . . . . . . . .
    . . x x . . . . . . . .
    . . x x . . . . . . . .
    . . x x x . . . . . . .
    . . . . . x . . . . . .
    . . . . . x x . . . . .
    . . . . . . . x . . . .
    . . . . . . . . x . . .
    . . . . . . . . . x . .
    . . . . . . . . . x x .
    . . . . . . . . . . . .
"""


@pytest.fixture
def batch() -> PackedSequences:
    packed = pack_histories(TEXTS, max_tokens=64)
    row = packed.sequence[1].tolist()
    assert row == [0] * 7 + [1] * 4 + [-1]
    return packed


@pytest.mark.parametrize(
    ("mask", "drawing"), [(causal_mask, CAUSAL), (context_mask, CONTEXT), (intra_item_mask, INTRA_ITEM)]
)
def test_mask_is_as_drawn_by_hand(batch: PackedSequences, mask: Callable[[PackedSequences], Tensor], drawing: str):
    assert mask(batch).dtype == torch.bool
    assert mask(batch)[1].tolist() == from_drawing(drawing)


def test_mixed_mask_follows_each_sequence(batch: PackedSequences):
    mixed = mixed_mask(batch, torch.tensor([True, False, False]))
    assert mixed[1].tolist() == from_drawing(CONTEXT)
    assert torch.equal(mixed[0], causal_mask(batch)[0])
    assert not torch.equal(mixed[0], context_mask(batch)[0])
    other = mixed_mask(batch, torch.tensor([False, True, True]))
    assert other[1].tolist() == from_drawing(CAUSAL)
    assert torch.equal(other[0], context_mask(batch)[0])


def test_property_of_sequences_reaches_their_tokens_but_not_padding(batch: PackedSequences):
    assert of_tokens(batch, torch.tensor([True, False, True])).tolist() == [[True] * 12, [True] * 7 + [False] * 5]
    assert of_tokens(batch, torch.tensor([True, True, True])).tolist() == [[True] * 12, [True] * 11 + [False]]


def test_only_words_of_chosen_sequences_are_hidden(batch: PackedSequences):
    everything = choose_hidden(batch, torch.tensor([True, False, True]), 1.0, torch.Generator())
    assert torch.equal(everything, (batch.kind == Kind.TEXT) & torch.isin(batch.sequence, torch.tensor([0, 2])))
    assert not choose_hidden(batch, torch.tensor([True, True, True]), 0.0, torch.Generator()).any()


def test_hidden_share_is_as_asked():
    packed = pack_histories([[[1] * 50] * 10] * 20, max_tokens=1000)  # 10,000 words
    hidden = choose_hidden(packed, torch.ones(20, dtype=torch.bool), 0.25, torch.Generator().manual_seed(0))
    assert hidden.sum().item() == pytest.approx(2500, abs=4 * (10_000 * 0.25 * 0.75) ** 0.5)


def test_hiding_puts_the_mask_token_in_place_and_changes_nothing_else(batch: PackedSequences):
    hidden = torch.zeros_like(batch.kind, dtype=torch.bool)
    hidden[1, 3] = True
    masked = hide(batch, hidden)
    assert masked.input_ids[1].tolist() == [-1, -2, 10, Soft.MASK.input_id, -3, 12, -3, -1, -2, 13, -3, 0]
    assert torch.equal(masked.input_ids[0], batch.input_ids[0])
    assert masked.kind is batch.kind
    assert masked.span is batch.span
