"""Where the backbone looks while it reads a history: token by token, rolled up to items, and as shares.

    symbol  meaning
    L       layers of the backbone
    H       heads of a layer
    T       tokens of the window
    S       items of the window

Attention says where a layer looks, not what a recommendation rests on: see `effects` for that.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from darec.data.catalog import History
from darec.data.sequences import PREFIX_SPAN, Kind, PackedSequences, Soft
from darec.errors import ConfigError
from darec.explain.recording import attention_recorded, stack_layers
from darec.explain.scoring import check_history
from darec.model.masking import causal_mask, context_mask, intra_item_mask
from darec.model.recommender import DarecModel

MaskName = Literal["context", "causal", "intra-item"]
MASKS = {"context": context_mask, "causal": causal_mask, "intra-item": intra_item_mask}
SHARES = ("own item", "other items", "prefix")  # what `Attention.shares` is split into


def own_mask(model: DarecModel) -> MaskName:
    """The mask that a model recommends under."""
    return "context" if model.settings.masking.enabled else "causal"


@dataclass(frozen=True, eq=False)
class WindowTokens:
    """What the backbone reads of a history; a token's place in these arrays is its position in the sequence.

    Attributes:
        texts: T words as they read, or [BOS], [USER], [ITEM], [MASK].
        span: [T] int64; the item in `entries` that the token belongs to, -1 for the prefix.
        kind: [T] int64 of `Kind`.
        entries: the window's S items, oldest first: an item_index, or a title the catalogue has never seen.
        left_out: items of the history before the window, which only the CF model may read.
    """

    texts: tuple[str, ...]
    span: np.ndarray
    kind: np.ndarray
    entries: tuple[int | str, ...]
    left_out: int

    def words(self) -> np.ndarray:
        """[words] int64: the positions that can be hidden."""
        return np.flatnonzero(self.kind == Kind.TEXT)


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention of one pass over one history.

    Attributes:
        mask_name: the mask it was read under.
        tokens: what was read.
        mask: [T, T] bool; true where the query (row) may look at the key (column).
        weights: [L, H, T, T] float32; each row sums to 1, and is 0 where the mask is false.
        blind: [T] bool; queries with nothing to look at. Their rows are 0, and they count nowhere.
        items: [L, S + 1, S + 1] float32, mean over heads: row and column 0 are the prefix, k + 1 the item of span k. An
            entry is the mean over the row's tokens of what they give to all tokens of the column; rows sum to 1.
        head_shares: [L, H, 3] float32, mean over the tokens of items: what they give to their own item, to other
            items, to the prefix; rows sum to 1.
    """

    mask_name: str
    tokens: WindowTokens
    mask: np.ndarray
    weights: np.ndarray
    blind: np.ndarray
    items: np.ndarray
    head_shares: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """[L, 3] float32, mean over heads; rows sum to 1."""
        return self.head_shares.mean(axis=1)

    @property
    def item_shares(self) -> np.ndarray:
        """[L, 2] float32: of what items get, the intra-item and the inter-item share; rows sum to 1."""
        items = self.shares[:, :2]
        return items / items.sum(axis=1, keepdims=True)

    def mean_over_heads(self) -> np.ndarray:
        """[L, T, T]; rows sum to 1."""
        return self.weights.mean(axis=1)


@torch.no_grad()
def explain_attention(
    model: DarecModel, history: History, mask: MaskName = "context", *, collaborative: bool = True
) -> Attention:
    """Read a history as for a prediction and keep where each token looked.

    Args:
        model: in evaluation mode.
        history: oldest first.
        mask: `context` or `causal`, the two that histories are trained under; `intra-item`, under which single items
            are encoded, lets no [ITEM] see another.
        collaborative: whether the CF path takes part.

    Raises:
        DataError: the history cannot be read.
        ConfigError: there is no such mask.
        BackboneError: the backbone does not give its weights.
    """
    check_history(model, history)
    windows = model.windows.build([history]).to(model.device)
    allowed = mask_of(mask, windows.packed)
    kept = model.with_collaborative(windows, collaborative)
    with attention_recorded(model) as (view, record):
        view.encode(windows, allowed, kept)
    tokens = read_tokens(model, history, windows.packed)
    return summarize_attention(mask, tokens, allowed[0].cpu().numpy(), stack_layers(record))


def summarize_attention(mask_name: str, tokens: WindowTokens, mask: np.ndarray, weights: np.ndarray) -> Attention:
    """Roll raw weights [L, H, T, T] up; rows that the mask leaves nothing to look at become 0."""
    blind = np.logical_not(mask.any(axis=-1))
    weights = np.where(blind[:, None], 0, weights).astype(np.float32)
    groups = np.arange(-1, len(tokens.entries))[:, None] == tokens.span  # [S + 1, T]
    queries = groups & ~blind
    received = weights @ groups.T.astype(np.float32)  # [L, H, T, S + 1]: what each token gives to each group
    counts = np.maximum(queries.sum(axis=1), 1)[:, None]
    items = queries.astype(np.float32) @ received.mean(axis=1) / counts  # [L, S + 1, S + 1]
    read = np.flatnonzero((tokens.span != PREFIX_SPAN) & ~blind)
    own = received[:, :, read, tokens.span[read] + 1].mean(axis=-1)
    prefix = received[:, :, read, 0].mean(axis=-1)
    others = received[:, :, read].sum(axis=-1).mean(axis=-1) - own - prefix
    shares = np.stack([own, others, prefix], axis=-1)
    return Attention(mask_name, tokens, mask, weights, blind, items, shares)


def draw_mask(model: DarecModel, history: History, mask: MaskName) -> tuple[WindowTokens, np.ndarray]:
    """The tokens of a history and who may look at whom, [T, T] bool, without a forward pass.

    Raises:
        DataError: the history cannot be read.
        ConfigError: there is no such mask.
    """
    check_history(model, history)
    packed = model.windows.build([history]).packed
    return read_tokens(model, history, packed), mask_of(mask, packed)[0].numpy()


def mask_of(name: str, packed: PackedSequences) -> torch.Tensor:
    """[R, T, T] bool: the mask of that name.

    Raises:
        ConfigError: there is no such mask.
    """
    if name not in MASKS:
        raise ConfigError(f"There is no mask {name!r}. Known: {', '.join(MASKS)}.")
    return MASKS[name](packed)


def read_tokens(model: DarecModel, history: History, packed: PackedSequences) -> WindowTokens:
    """The one sequence of a batch in words."""
    ids, span, kind = (array[0].cpu().numpy() for array in (packed.input_ids, packed.span, packed.kind))
    size = int(span.max()) + 1
    texts = tuple(word_text(model, token) for token in ids.tolist())
    entries = tuple(entry if isinstance(entry, str) else int(entry) for entry in history[-size:])
    return WindowTokens(texts, span, kind, entries, len(history) - size)


def word_text(model: DarecModel, token: int) -> str:
    """How a token of `input_ids` reads."""
    return f"[{Soft(-1 - token).name}]" if token < 0 else model.tokenizer.decode([token])
