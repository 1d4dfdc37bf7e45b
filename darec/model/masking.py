"""Who may look at whom: causal, intra-item and context masks as pure functions of a packed batch, and word hiding.

Every mask is [R, T, T] bool, true where the query (second to last axis) may look at the key (last axis). No query sees
padding or another packed sequence; a padding query sees nothing.
"""

import torch
from torch import Tensor

from darec.data.sequences import Kind, PackedSequences, Soft


def causal_mask(batch: PackedSequences) -> Tensor:
    """Key at or before the query."""
    return _same_sequence(batch) & _not_later(batch)


def intra_item_mask(batch: PackedSequences) -> Tensor:
    """Key a word of the query's own item, or the query itself."""
    itself = torch.eye(batch.kind.shape[1], dtype=torch.bool, device=batch.kind.device)
    return _same_sequence(batch) & (_own_words(batch) | itself)


def context_mask(batch: PackedSequences) -> Tensor:
    """Causal between items, both directions among an item's words; no word sees its own item's [ITEM]."""
    return _same_sequence(batch) & (_not_later(batch) | _own_words(batch))


def mixed_mask(batch: PackedSequences, in_context: Tensor) -> Tensor:
    """The context mask for the sequences where `in_context` ([n] bool) is true, the causal mask for the others."""
    return causal_mask(batch) | (context_mask(batch) & of_tokens(batch, in_context)[:, :, None])


def of_tokens(batch: PackedSequences, of_sequences: Tensor) -> Tensor:
    """[R, T] bool: each token's value of a [n] bool property of sequences; false for padding."""
    return of_sequences[batch.sequence.clamp(min=0)] & (batch.kind != Kind.PAD)


def choose_hidden(batch: PackedSequences, in_sequences: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """[R, T] bool: words to hide, each with probability `share`, in the sequences where `in_sequences` is true.

    `generator` is a CPU generator, so that one seed hides the same words on every device.
    """
    drawn = torch.rand(batch.kind.shape, generator=generator).to(batch.kind.device) < share
    return drawn & (batch.kind == Kind.TEXT) & of_tokens(batch, in_sequences)


def hide(batch: PackedSequences, hidden: Tensor) -> PackedSequences:
    """The batch with the mask token in place of every hidden word."""
    input_ids = batch.input_ids.masked_fill(hidden, Soft.MASK.input_id)
    return PackedSequences(
        input_ids, batch.sequence, batch.span, batch.kind, batch.position_ids, cut_items=batch.cut_items
    )


def _same_sequence(batch: PackedSequences) -> Tensor:
    real = batch.kind != Kind.PAD
    return (batch.sequence[:, :, None] == batch.sequence[:, None, :]) & real[:, :, None] & real[:, None, :]


def _not_later(batch: PackedSequences) -> Tensor:
    return batch.position_ids[:, None, :] <= batch.position_ids[:, :, None]


def _own_words(batch: PackedSequences) -> Tensor:
    return (batch.span[:, :, None] == batch.span[:, None, :]) & (batch.kind == Kind.TEXT)[:, None, :]
