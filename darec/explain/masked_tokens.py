"""Hide words of a history: where the hidden places look, what the model expects there, what it then recommends.

There are two honest readings of "what the model expects at position t", and they answer different questions:

    context   t carries the mask token, every chosen word is hidden, the context mask holds; the words are read off the
              state at t through the mask head. It sees earlier items, and its own item's other words on both sides.
    causal    nothing is hidden, the causal mask holds, as in ordinary language modelling; the words are read off the
              state at t - 1 through the title head. It sees every earlier word, also those that are hidden in the other
              reading, and none from t on.

In either, the word that stands at t cannot reach the prediction for t.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from darec.data.catalog import History
from darec.data.sequences import Kind
from darec.data.windows import Windows
from darec.errors import DataError
from darec.explain.attention import MaskName, WindowTokens, mask_of, own_mask, read_tokens, word_text
from darec.explain.recording import attention_recorded, stack_layers
from darec.explain.scoring import candidates_after, check_history, ranks_among
from darec.model.masking import hide
from darec.model.recommender import DarecModel, Encoded


@dataclass(frozen=True, eq=False)
class WordExpectation:
    """What one reading expects at one position.

    Attributes:
        reading: `context` or `causal`.
        words: the k likeliest words, likeliest first, as they read.
        probabilities: [k] float64 in 0..1, falling; over the whole vocabulary they would sum to 1.
        true_probability: of the word that stands there, 0 to 1.
        true_rank: of the word that stands there, from 1, ties against it.
        looks_from: the position whose state is read: t under `context`, t - 1 under `causal`.
        attention: [L, H, T] float32; where that position looks; each row sums to 1.
        trained: whether this reading was part of the training; if not, its words mean nothing.
    """

    reading: Literal["context", "causal"]
    words: tuple[str, ...]
    probabilities: np.ndarray
    true_probability: float
    true_rank: int
    looks_from: int
    attention: np.ndarray
    trained: bool


@dataclass(frozen=True, eq=False)
class HiddenWord:
    """One hidden position t, its word, and the two readings."""

    position: int
    word: str
    context: WordExpectation
    causal: WordExpectation


@dataclass(frozen=True, eq=False)
class HiddenWords:
    """What hiding does.

    Attributes:
        tokens: what the backbone reads, with [MASK] at the hidden positions.
        hidden: one entry a hidden position, in order of the text.
        ranks_before: [N] int64; every item's rank when nothing is hidden, 0 for those that are no candidates.
        ranks_after: [N] int64; the same with the words hidden, under the same mask. Hiding takes words from the
            backbone alone: the CF path, where it takes part, still knows which items they are.
    """

    tokens: WindowTokens
    hidden: tuple[HiddenWord, ...]
    ranks_before: np.ndarray
    ranks_after: np.ndarray


@torch.no_grad()
def hide_words(
    model: DarecModel,
    history: History,
    positions: Sequence[int],
    *,
    k: int = 5,
    collaborative: bool = True,
    exclude_seen: bool = True,
) -> HiddenWords:
    """Put the mask token in place of words.

    Args:
        model: in evaluation mode.
        history: oldest first.
        positions: positions of words in the window's tokens, at least one; see `WindowTokens.words`.
        k: words a reading lists.
        collaborative: whether the CF path takes part.
        exclude_seen: leave the items of the history out of the ranks.

    Raises:
        DataError: the history cannot be read, a position holds no word, none is given, or k is below 1.
        BackboneError: the backbone does not give its attention.
    """
    check_history(model, history)
    windows = model.windows.build([history]).to(model.device)
    packed = windows.packed
    chosen = _check_positions(positions, packed.kind[0])
    if k < 1:
        raise DataError(f"The number of words to list must be at least 1; got {k}.")
    hidden = torch.zeros_like(packed.kind, dtype=torch.bool)
    hidden[0, chosen] = True

    own = own_mask(model)
    passes: set[tuple[MaskName, bool]] = {("context", True), ("causal", False), (own, False), (own, True)}
    read = {
        (mask, hides): _read(model, windows, mask, collaborative, hidden if hides else None) for mask, hides in passes
    }
    true_ids, before = packed.input_ids[0, chosen], [position - 1 for position in chosen]
    context_trained, causal_trained = _trained_readings(model)
    context = _expect(model, read["context", True], "context", model.mask_head, chosen, true_ids, k, context_trained)
    causal = _expect(model, read["causal", False], "causal", model.title_head, before, true_ids, k, causal_trained)
    words = [word_text(model, token) for token in true_ids.tolist()]

    candidates = candidates_after(model, history, exclude_seen=exclude_seen)
    scores = [_last_scores(model, read[own, hides][0]) for hides in (False, True)]
    ranks_before, ranks_after = ranks_among(np.stack(scores), candidates)
    return HiddenWords(
        read_tokens(model, history, hide(packed, hidden)),
        tuple(map(HiddenWord, chosen, words, context, causal)),
        ranks_before,
        ranks_after,
    )


def _check_positions(positions: Sequence[int], kind: Tensor) -> list[int]:
    words = torch.nonzero(kind == Kind.TEXT).flatten().tolist()
    if not len(positions):
        raise DataError("Hiding needs at least one word; none was chosen. Choose a word.")
    for position in positions:
        if position not in words:
            raise DataError(f"Only words can be hidden; position {position} of {len(kind)} holds none. Choose a word.")
    return sorted({int(position) for position in positions})


def _read(
    model: DarecModel, windows: Windows, mask: MaskName, collaborative: bool, hidden: Tensor | None
) -> tuple[Encoded, np.ndarray]:
    """The pass, and its attention, [L, H, T, T]."""
    kept = model.with_collaborative(windows, collaborative)
    with attention_recorded(model) as (view, record):
        encoded = view.encode(windows, mask_of(mask, windows.packed), kept, hidden=hidden)
    return encoded, stack_layers(record)


def _expect(
    model: DarecModel,
    read: tuple[Encoded, np.ndarray],
    reading: Literal["context", "causal"],
    head: nn.Module,
    positions: list[int],
    true_ids: Tensor,
    k: int,
    trained: bool,
) -> list[WordExpectation]:
    encoded, attention = read
    states = encoded.hidden_states[0, positions]
    probabilities = model.word_logits(head, states).double().softmax(dim=-1).cpu()  # [positions, V]
    expectations = []
    for row, position, true in zip(probabilities, positions, true_ids.tolist(), strict=True):
        best = row.topk(min(k, len(row)))
        expectations.append(
            WordExpectation(
                reading,
                tuple(word_text(model, token) for token in best.indices.tolist()),
                best.values.numpy(),
                float(row[true]),
                int((row >= row[true]).sum()),
                position,
                attention[:, :, position],
                trained,
            )
        )
    return expectations


def _trained_readings(model: DarecModel) -> tuple[bool, bool]:
    """Whether the settings let the mask head (context) and the title head (causal) learn anything."""
    masking, title = model.settings.masking, model.settings.title
    in_context = masking.context_share if masking.enabled else 0.0
    hides = in_context * masking.hiding_share * masking.hidden_tokens * masking.loss_weight > 0
    return hides, (1 - in_context) * title.token_share * title.loss_weight > 0


def _last_scores(model: DarecModel, encoded: Encoded) -> np.ndarray:
    """[N] float64 scores at the only history's last boundary."""
    last = encoded.at(torch.tensor([len(encoded.span) - 1], device=model.device))
    return model.score_terms(last).total()[0].double().cpu().numpy()
