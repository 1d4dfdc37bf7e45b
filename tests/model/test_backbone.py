import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from darec.errors import BackboneError
from darec.model.backbone import (
    Family,
    learn_tokenizer,
    linear_maps,
    load_backbone,
    max_positions,
    run_backbone,
    save_backbone,
    tiny_backbone,
    transformer_layers,
)
from darec.model.quantization import is_four_bit, save_four_bit

FAMILIES = ["llama", "qwen3", "gpt2", "bert"]
TEXTS = ["The Lighthouse Keeper (1951), Drama", "Seven Quiet Rivers (1975), Drama", "Café at the Border"]
POSITIONS = torch.arange(7)[None]


def parts(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@torch.no_grad()
def test_causal_mask_gives_the_models_own_hidden_states(family: str):
    model, tokenizer = tiny_backbone(TEXTS, family)
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"][:7]])
    own = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    mask = torch.ones(1, 7, 7, dtype=torch.bool).tril()
    states = run_backbone(model, model.get_input_embeddings()(ids), mask, POSITIONS)
    torch.testing.assert_close(states, own, rtol=0, atol=1e-5)


@torch.no_grad()
def test_mask_alone_says_who_sees_whom(family: str):
    model, _ = tiny_backbone(TEXTS, family)
    inputs = torch.randn(1, 7, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.eye(7, dtype=torch.bool)[None].clone()
    mask[0, 2, 5] = True  # the third token sees the sixth, against the direction of time
    before = run_backbone(model, inputs, mask, POSITIONS)
    inputs[0, 5] *= -1
    after = run_backbone(model, inputs, mask, POSITIONS)
    changed = (after - before).abs().amax(dim=-1)[0] > 1e-4
    assert changed.nonzero().flatten().tolist() == [2, 5]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])  # eager where attention is drawn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_row_that_sees_nothing_is_finite(family: str, dtype: torch.dtype, attention: str):
    model, _ = tiny_backbone(TEXTS, family)
    model.set_attn_implementation(attention)
    inputs = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 7, 7, dtype=torch.bool).tril()
    mask[1] = False
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        states = run_backbone(model, inputs, mask, POSITIONS.expand(2, 7))
    assert torch.isfinite(states).all()


@torch.no_grad()
def test_saved_backbone_is_read_back_bit_for_bit(family: str, tmp_path: Path):
    model, tokenizer = tiny_backbone(TEXTS, family)
    save_backbone(model, tokenizer, tmp_path)
    again, again_tokenizer = load_backbone(tmp_path)
    state = again.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert again_tokenizer(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_random_twin_has_the_shape_but_not_the_weights(tmp_path: Path):
    model, tokenizer = tiny_backbone(TEXTS)
    save_backbone(model, tokenizer, tmp_path)
    twin, same, other = (load_backbone(tmp_path, random_init=True, seed=seed)[0] for seed in (1, 1, 2))
    assert parts(twin).shape == parts(model).shape
    assert torch.equal(parts(twin), parts(same))
    assert not torch.equal(parts(twin), parts(model))
    assert not torch.equal(parts(twin), parts(other))


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_random_twin_of_a_four_bit_backbone_is_random_and_whole(tmp_path: Path, family: Family):
    model, tokenizer = tiny_backbone(TEXTS, family)
    save_backbone(model, tokenizer, tmp_path / "four")
    save_four_bit(model, tmp_path / "four")
    decoded = load_backbone(tmp_path / "four")[0].state_dict()
    twin = load_backbone(tmp_path / "four", random_init=True, seed=1)[0]
    save_backbone(twin, tokenizer, tmp_path / "twin")
    assert not is_four_bit(tmp_path / "twin")
    again = load_backbone(tmp_path / "twin")[0].state_dict()
    assert again.keys() == decoded.keys()
    drawn = [name for name, tensor in decoded.items() if tensor.ndim == 2 and tensor.std() > 0]
    assert len(drawn) > 10
    assert not any(torch.equal(again[name], decoded[name]) for name in drawn)
    assert all(torch.equal(again[name], tensor) for name, tensor in twin.state_dict().items())


def test_loading_leaves_the_random_state_alone(tmp_path: Path):
    save_backbone(*tiny_backbone(TEXTS), tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_backbone(tmp_path, random_init=True)
    tiny_backbone(TEXTS)
    assert torch.equal(torch.rand(1), expected)


def test_encoder_without_a_language_model_head_runs_as_a_decoder(tmp_path: Path):
    model, tokenizer = tiny_backbone(TEXTS, "bert")
    model.base_model.config.is_decoder = False
    model.base_model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    decoder, _ = load_backbone(tmp_path)
    assert decoder.config.is_decoder
    assert torch.equal(decoder.get_input_embeddings().weight, model.get_input_embeddings().weight)


@pytest.mark.parametrize("name", ["/nowhere/at all", "./nowhere", "../nowhere", "runs/of mine/backbone"])
def test_missing_folder_is_refused_in_one_sentence_without_asking_the_hub(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("darec.model.backbone.AutoTokenizer", None)  # what would ask the hub
    with pytest.raises(BackboneError, match=rf"There is no folder {re.escape(repr(name))}\. Give one"):
        load_backbone(name)


def test_folder_without_a_model_is_refused(tmp_path: Path):
    _, tokenizer = tiny_backbone(TEXTS)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="could not be loaded"):
        load_backbone(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        ("bloom", {}),  # takes no mask of this form
        ("mamba", {}),  # has no attention
        ("gpt_neo", {"num_layers": 2, "attention_types": [[["global", "local"], 1]]}),  # adds a causal mask of its own
        ("electra", {"embedding_size": 32}),  # word vectors narrower than its layers
    ],
)
def test_backbone_that_does_not_obey_the_mask_is_refused(architecture: str, shape: dict[str, object], tmp_path: Path):
    common = {"vocab_size": 600, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(architecture, **{**common, "intermediate_size": 128, "pad_token_id": 0, **shape})
    config.is_decoder = True
    save_backbone(AutoModelForCausalLM.from_config(config), tiny_backbone(TEXTS)[1], tmp_path)
    with pytest.raises(BackboneError, match=rf"let a mask alone say who sees whom; .* \({architecture}\) does not"):
        load_backbone(tmp_path)


def test_tokenizer_reads_any_text_and_gives_it_back():
    tokenizer = learn_tokenizer(TEXTS, vocabulary=400)
    for text in [*TEXTS, "Ünseen 電影 🎬 =1+1"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) <= 400


@pytest.mark.parametrize(
    ("family", "attention", "mlp"),
    [
        ("llama", ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]),
        ("qwen3", ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]),
        ("gpt2", ["c_attn", "c_proj"], ["c_fc", "c_proj"]),
        ("bert", ["query", "key", "value", "dense"], ["dense", "dense"]),
    ],
)
def test_linear_maps_of_each_layer_are_told_apart(family: str, attention: list[str], mlp: list[str]):
    model, _ = tiny_backbone(TEXTS, family)
    prefix, layers = transformer_layers(model, 2)
    assert len(layers) == 2
    for place, expected in (("attention", attention), ("mlp", mlp)):
        names = linear_maps(model, place)
        assert [[name.rpartition(".")[2] for name in layer] for layer in names] == [expected] * 2
        assert all(name.startswith(f"{prefix}.{number}.") for number, layer in enumerate(names) for name in layer)
        assert all(model.get_submodule(name) for layer in names for name in layer)


def test_backbone_without_a_list_of_layers_is_refused():
    with pytest.raises(BackboneError, match="must keep its 2 layers in one module list"):
        transformer_layers(torch.nn.Linear(2, 2), 2)


def test_positions_are_read_from_the_config(family: str):
    assert max_positions(tiny_backbone(TEXTS, family)[0]) == 512
