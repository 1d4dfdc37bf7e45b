import math

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from darec.data.corpus import Corpus
from darec.model.backbone import learn_tokenizer
from darec.training.pretrain import PRESETS, build_model
from darec.training.text_rows import (
    TextLoss,
    encode_documents,
    hold_out,
    measure_loss,
    pack_rows,
    read_rows,
    separate_documents,
)

TEXTS = ["ba be", "bi bu da de", "ku"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return learn_tokenizer(TEXTS, 320)


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    return build_model(tokenizer, PRESETS["tiny"], seed=0)


class TestPacking:
    documents = tuple(np.array(ids, np.int32) for ids in ([1, 5, 6, 2], [1, 7, 2], [1, 8, 9, 2]))

    def test_rows_overlap_by_one_token_and_end_in_begins(self):
        # stream 1 5 6 2 1 7 2 1 8 9 2: ten tokens to predict, four a row
        expected = [[1, 5, 6, 2, 1], [1, 7, 2, 1, 8], [8, 9, 2, 1, 1]]
        assert pack_rows(self.documents, context=4).tolist() == expected

    def test_text_that_fills_its_rows_needs_no_filling(self):
        assert pack_rows(self.documents, context=5).tolist() == [[1, 5, 6, 2, 1, 7], [7, 2, 1, 8, 9, 2]]

    def test_mask_and_positions_of_a_row_with_three_documents(self):
        begins = torch.tensor([[False, False, True, False, True]])  # 8 2 <s> 5 <s>: the first one began a row earlier
        mask, positions = separate_documents(begins)
        assert mask[0].int().tolist() == [
            [1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [0, 0, 1, 0, 0],
            [0, 0, 1, 1, 0],
            [0, 0, 0, 0, 1],
        ]
        assert positions.tolist() == [[0, 1, 0, 1, 0]]

    def test_begin_is_read_but_never_predicted(self, model):
        rows = torch.from_numpy(pack_rows(self.documents, context=4).astype(np.int64))
        assert read_rows(model, rows)[1] == 3 + 2 + 3  # all but the three begins: 5 6 2, 7 2, 8 9 2

    def test_loss_of_packed_documents_is_that_of_each_read_alone(self, model, tokenizer):
        together = measure_loss(model, tokenizer, TEXTS, batch_size=2)
        alone = [measure_loss(model, tokenizer, [text], batch_size=2) for text in TEXTS]
        assert together.nats == pytest.approx(sum(loss.nats for loss in alone), rel=1e-6)
        ids = torch.from_numpy(encode_documents(tokenizer, TEXTS[1:2])[0].astype(np.int64))[None]
        mean = model(input_ids=ids, labels=ids).loss.item()  # the library's own next-token loss
        assert alone[1].nats == pytest.approx(mean * (ids.shape[1] - 1), rel=1e-5)
        assert (together.tokens, together.bytes) == (sum(loss.tokens for loss in alone), 5 + 11 + 2)


def test_bits_per_byte_and_perplexity_from_their_definition():
    loss = TextLoss(1, nats=8 * math.log(2), tokens=4, bytes=2) + TextLoss(1, nats=0.0, tokens=0, bytes=2)
    assert loss.bits_per_byte == pytest.approx(2.0)
    assert loss.perplexity == pytest.approx(4.0)


def test_training_documents_are_all_others_and_none_is_both():
    corpora = [
        Corpus("a.txt", "A", "", 0, "", [f"a{number}" for number in range(200)]),
        Corpus("b.txt", "B", "", 0, "", ["b0", "b1", "b2"]),
    ]
    training, heldout = hold_out(corpora, 0.05, seed=1)
    assert {title: len(texts) for title, texts in heldout.items()} == {"A": 10, "B": 1}
    assert sorted([*training, *heldout["A"], *heldout["B"]]) == sorted(corpora[0].documents + corpora[1].documents)
    assert hold_out(corpora, 0.05, seed=2)[1] != heldout == hold_out(corpora, 0.05, seed=1)[1]
