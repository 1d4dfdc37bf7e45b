import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast

from darec.errors import BackboneError
from darec.model.text_features import encode_texts

WORDS = ["[PAD]", "[UNK]", "heat", "crime", "toy", "story", "animation", "a", "long", "row", "of", "words"]
TEXTS = ["heat crime", "toy story animation a long row of words", "toy"]


def save_backbone(folder: Path, family: str) -> str:
    """A tiny random backbone with a word tokenizer; GPT-2's has no padding token, as the real one has none."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    if family == "bert":
        model: torch.nn.Module = BertModel(
            BertConfig(
                vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
            )
        )
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    else:
        model = GPT2Model(GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, n_positions=32))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="[UNK]", unk_token="[UNK]")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_features_have_length_one_and_do_not_depend_on_the_batch(tmp_path, family):
    backbone = save_backbone(tmp_path, family)
    together, alone = encode_texts(TEXTS, backbone, batch_size=3), encode_texts(TEXTS, backbone, batch_size=1)
    assert together.shape == (3, 16)
    assert together.dtype == torch.float32
    assert torch.allclose(together.norm(dim=1), torch.ones(3))
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(together[0], together[2], atol=1e-2)


def test_features_are_the_mean_of_the_last_hidden_states(tmp_path):
    backbone = save_backbone(tmp_path, "bert")
    states = BertModel.from_pretrained(backbone).eval()(torch.tensor([[2, 3]])).last_hidden_state[0]
    expected = states.mean(0) / states.mean(0).norm()
    assert torch.allclose(encode_texts(["heat crime"], backbone)[0], expected, atol=1e-5)


def test_empty_text_has_finite_features(tmp_path):
    assert torch.isfinite(encode_texts(["", "heat"], save_backbone(tmp_path, "bert"))).all()


def test_no_texts_give_no_features(tmp_path):
    assert encode_texts([], save_backbone(tmp_path, "bert")).shape == (0, 16)


def test_folder_without_a_backbone_is_refused(tmp_path):
    with pytest.raises(BackboneError, match="Hugging Face name or a folder"):
        encode_texts(["heat"], str(tmp_path))


def test_pretrained_features_put_like_meaning_together():
    shared = Path(os.environ.get("DAREC_SHARED", Path(__file__).parents[2].parent / "shared"))
    folder = shared / "models" / "all-minilm-l6-v2"
    if not folder.is_dir():
        pytest.skip("needs models/all-minilm-l6-v2 under DAREC_SHARED")
    car, vehicle, soup = encode_texts(["a fast car", "a quick automobile", "a bowl of soup"], str(folder))
    assert car @ vehicle > car @ soup + 0.2
