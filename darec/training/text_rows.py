"""Text in rows: documents laid end to end, read each for itself, and how well a model predicts them.

Documents are wrapped in `<s>` and `</s>` and cut into rows of `context` tokens. No token looks beyond its own document,
and positions count from where the document begins in its row: so an item's text is read in training as it will be read
alone. A document that a row's end cuts goes on in the next row without what was before.

    symbol  meaning
    R       rows of a batch, or of all text
    T       context: tokens of a row
    V       tokens that the vocabulary has
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from darec.data.corpus import Corpus
from darec.errors import DataError

IGNORED = -100  # a target that the loss leaves out
_DOCUMENTS_AT_ONCE = 1000
_LOGITS_AT_ONCE = 1024  # tokens; all of a batch at once took a tenth longer a step on a CPU


def hold_out(corpora: Sequence[Corpus], share: float, seed: int) -> tuple[list[str], dict[str, list[str]]]:
    """Documents to train on, and for each corpus the documents that are kept from training.

    Raises:
        DataError: two corpora have one title, or one has a single document.
    """
    training: list[str] = []
    heldout: dict[str, list[str]] = {}
    for number, corpus in enumerate(corpora):
        count = len(corpus.documents)
        if corpus.title in heldout:
            raise DataError(f"Corpora must differ in title; two are called {corpus.title}. Name them in a corpus list.")
        if count < 2:
            raise DataError(f"A corpus needs two documents, one to be held out; {corpus.file} has one. Add some text.")
        order = np.random.default_rng([seed, number]).permutation(count)
        cut = min(count - 1, max(1, round(share * count)))
        heldout[corpus.title] = [corpus.documents[index] for index in order[:cut]]
        training += [corpus.documents[index] for index in order[cut:]]
    return training, heldout


def encode_documents(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[np.ndarray]:
    """For each text its int32 token ids between `<s>` and `</s>`; such words in the text itself are plain text."""
    documents = []
    for start in range(0, len(texts), _DOCUMENTS_AT_ONCE):
        some = list(texts[start : start + _DOCUMENTS_AT_ONCE])
        ids = tokenizer(some, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        documents += [np.array([tokenizer.bos_token_id, *each, tokenizer.eos_token_id], np.int32) for each in ids]
    return documents


def pack_rows(documents: Sequence[np.ndarray], context: int) -> np.ndarray:
    """Documents end to end, cut into rows: [R, context + 1] int32.

    A row begins with the last token of the one before, so that the first T of its tokens are read and the last T
    predicted, every token of the text once. The last row is filled up with `<s>`, which no loss asks for.
    """
    stream = np.concatenate(documents)
    rows = max(1, math.ceil((len(stream) - 1) / context))
    padded = np.full(rows * context + 1, stream[0], np.int32)
    padded[: len(stream)] = stream
    return np.lib.stride_tricks.sliding_window_view(padded, context + 1)[::context]


def read_rows(model: LlamaForCausalLM, rows: Tensor) -> tuple[Tensor, int]:
    """Predict every token of some rows but `<s>`.

    Args:
        model: the model; its configuration tells which token is `<s>`.
        rows: [R, T + 1] int64, from `pack_rows`, on the model's device.

    Returns:
        the sum of the losses in nats, and how many tokens were predicted.
    """
    begins = rows == model.config.bos_token_id
    targets = rows[:, 1:].masked_fill(begins[:, 1:], IGNORED)
    mask, position_ids = separate_documents(begins[:, :-1])
    states = model.model(
        input_ids=rows[:, :-1], attention_mask=mask[:, None], position_ids=position_ids, use_cache=False
    ).last_hidden_state  # [R, T, D]
    parts = zip(states.flatten(0, 1).split(_LOGITS_AT_ONCE), targets.flatten().split(_LOGITS_AT_ONCE), strict=True)
    losses = [
        F.cross_entropy(model.lm_head(part).float(), wanted, ignore_index=IGNORED, reduction="sum")  # logits [., V]
        for part, wanted in parts
    ]
    summed = torch.stack(losses).sum()
    return summed, int((targets != IGNORED).sum())


def separate_documents(begins: Tensor) -> tuple[Tensor, Tensor]:
    """Who may look at whom, and where in its document a token stands.

    Args:
        begins: [R, T] bool; true where a document begins.

    Returns:
        mask [R, T, T] bool: a query (second to last) sees the keys (last) of its own document up to itself. And
        position_ids [R, T] int64: tokens since the document, or else the row, began.
    """
    columns = torch.arange(begins.shape[1], device=begins.device)
    document = begins.cumsum(dim=1)
    mask = (document[:, :, None] == document[:, None, :]) & (columns[:, None] >= columns)
    starts = torch.where(begins, columns, 0).cummax(dim=1).values
    return mask, columns - starts


@dataclass(frozen=True)
class TextLoss:
    """How well a model predicts some text.

    Attributes:
        documents: how many.
        nats: sum of the losses of all their tokens, `</s>` among them.
        tokens: how many those are.
        bytes: of the text in UTF-8.
    """

    documents: int = 0
    nats: float = 0.0
    tokens: int = 0
    bytes: int = 0

    @property
    def perplexity(self) -> float:
        """exp of the mean loss of a token."""
        return math.exp(self.nats / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """Bits it takes to tell one byte of the text, the ends of documents included: comparable across tokenizers."""
        return self.nats / math.log(2) / self.bytes

    def __add__(self, other: "TextLoss") -> "TextLoss":
        return TextLoss(
            self.documents + other.documents,
            self.nats + other.nats,
            self.tokens + other.tokens,
            self.bytes + other.bytes,
        )

    def summary(self) -> dict[str, float]:
        """Its figures by name."""
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
        }


@torch.no_grad()
def measure_loss(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], batch_size: int
) -> TextLoss:
    """Read texts, each a document, in rows as training does, in float32."""
    rows = pack_rows(encode_documents(tokenizer, texts), model.config.max_position_embeddings)
    nats, tokens = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = torch.from_numpy(rows[start : start + batch_size].astype(np.int64))
        summed, targets = read_rows(model, batch.to(model.device))
        nats, tokens = nats + summed.item(), tokens + targets
    return TextLoss(len(texts), nats, tokens, sum(len(text.encode()) for text in texts))
