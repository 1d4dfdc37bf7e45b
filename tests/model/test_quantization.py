import dataclasses
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from darec.errors import BackboneError, ConfigError, RunError
from darec.model.backbone import load_backbone, tiny_backbone
from darec.model.quantization import (
    WEIGHTS,
    bytes_by_prefix,
    compare_rankings,
    decode_four_bit,
    is_four_bit,
    load_four_bit,
    save_four_bit,
)

FAMILIES = ("llama", "qwen3", "gpt2", "bert")
TEXTS = ["Heat (1995), Action, Crime", "Toy Story (1995), Animation", "Alien (1979), Horror"]
SHARED = Path(os.environ.get("DAREC_SHARED", Path(__file__).parents[3] / "shared"))


def as_bytes(settings: dict) -> torch.Tensor:
    return torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8)


def embed(model, seed: int = 0) -> torch.Tensor:
    width = model.get_input_embeddings().embedding_dim
    return torch.randn(2, 7, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=FAMILIES)
def quantized(request, tmp_path_factory):
    """A tiny backbone, the folder of its 4-bit form, and the report."""
    model, _ = tiny_backbone(TEXTS, request.param)
    folder = tmp_path_factory.mktemp(request.param) / "backbone"
    return model, folder, save_four_bit(model, folder)


@pytest.fixture
def folder(tmp_path):
    """The 4-bit form of a tiny Llama, to be spoiled."""
    save_four_bit(tiny_backbone(TEXTS)[0], tmp_path / "backbone")
    return tmp_path / "backbone"


def test_one_block_decodes_as_by_hand():
    codes = torch.arange(-8, 8) / 8  # eighths are exact; the decoder takes the codebook from the file
    packed = torch.full((32, 1), 0x88, dtype=torch.uint8)  # 8 stands for 0
    packed[0] = 0xF0  # 15, then 0: the first value sits in the high half
    packed[1] = 0x83
    state = {
        "quant_map": codes,
        "absmax": torch.tensor([2], dtype=torch.uint8),
        "nested_quant_map": torch.tensor([0.0, 0.25, 0.5, 1.0]),
        "nested_absmax": torch.tensor([4.0]),
        "quant_state.bitsandbytes__nf4": as_bytes(
            {"blocksize": 64, "shape": [1, 64], "nested_blocksize": 256, "nested_offset": 1.0}
        ),
    }
    scale = 0.5 * 4 + 1
    assert decode_four_bit(packed, state).tolist() == [[scale * 7 / 8, -scale, 0, scale * -5 / 8] + [0] * 60]


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("shape", [(64, 64), (3, 128), (200, 320)])
def test_decoding_equals_bitsandbytes_bit_for_bit(shape, nested):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 1, shape[0])[:, None]
    packed, state = quantize_4bit(weight, blocksize=64, compress_statistics=nested, quant_type="nf4")
    assert torch.equal(decode_four_bit(packed, state.as_dict(packed=True)), dequantize_4bit(packed, state))


def test_decoded_values_are_the_nearest_of_the_codebook():
    # NF4 (QLoRA, appendix E) has 0.0796 and 0.1609 next above zero; a block's largest magnitude stands for 1.
    weight = torch.zeros(1, 64)
    weight[0, :5] = torch.tensor([-2.0, 2 * 0.11, 2 * 0.13, 1.9, 2 * 0.05])
    packed, state = quantize_4bit(weight, blocksize=64, compress_statistics=False, quant_type="nf4")
    decoded = decode_four_bit(packed, state.as_dict(packed=True))
    assert decoded[0, :5].tolist() == pytest.approx([-2.0, 2 * 0.0796, 2 * 0.1609, 2.0, 2 * 0.0796], abs=2e-4)
    assert decoded[0, 5:].abs().max() == 0


def test_the_layers_linear_maps_are_read_back_as_plain_float32_modules(quantized):
    model, folder, _ = quantized
    loaded = load_four_bit(folder)
    assert type(loaded) is type(model)
    assert [(name, type(m)) for name, m in loaded.named_modules()] == [(n, type(m)) for n, m in model.named_modules()]
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not loaded.training


def test_what_is_not_quantized_is_kept_to_float16_precision(quantized):
    model, folder, _ = quantized
    loaded = load_four_bit(folder).state_dict()
    packed = {name.split(".weight.")[0] + ".weight" for name in load_file(folder / WEIGHTS) if ".weight." in name}
    for name, tensor in model.state_dict().items():
        if name in packed:
            assert not torch.equal(loaded[name], tensor)
        else:
            assert torch.equal(loaded[name], tensor.half().float()), name


def test_outputs_stay_close_to_the_full_precision_model(quantized):
    model, folder, _ = quantized
    embeds = embed(model)
    expected = model.base_model(inputs_embeds=embeds).last_hidden_state
    error = (load_four_bit(folder).base_model(inputs_embeds=embeds).last_hidden_state - expected).norm()
    assert 0 < error / expected.norm() < 0.15


def test_transformers_reads_the_same_four_bit_values_from_the_folder(quantized):
    _, folder, _ = quantized
    theirs, ours = AutoModelForCausalLM.from_pretrained(folder), load_four_bit(folder)
    maps = {name: module for name, module in theirs.named_modules() if isinstance(module, Linear4bit)}
    assert len(maps) >= 8
    for name, module in maps.items():
        plain = ours.get_submodule(name)
        weight = plain.weight if isinstance(plain, nn.Linear) else plain.weight.T
        assert torch.equal(dequantize_4bit(module.weight, module.weight.quant_state), weight), name


def test_a_model_that_is_four_bit_already_is_written_unchanged(quantized, tmp_path):
    _, folder, report = quantized
    again = save_four_bit(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "again")
    first, second = load_file(folder / WEIGHTS), load_file(tmp_path / "again" / WEIGHTS)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert again == report


def test_tied_weights_are_written_once_and_tied_again(quantized):
    model, folder, _ = quantized
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    loaded = load_four_bit(folder)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    shape = tuple(model.get_input_embeddings().weight.shape)
    assert sum(tuple(tensor.shape) == shape for tensor in load_file(folder / WEIGHTS).values()) == 1


def test_report_adds_up_to_the_models_parameters_and_the_files_bytes(quantized):
    model, folder, report = quantized
    assert sum(report.bytes_before.values()) == 4 * sum(p.numel() for p in model.parameters())
    assert sum(report.bytes_after.values()) == sum(t.nbytes for t in load_file(folder / WEIGHTS).values())
    assert report.bytes_after["linear_maps"] < report.bytes_before["linear_maps"] / 4
    assert report.bytes_after["embeddings"] == report.bytes_before["embeddings"] / 2
    assert report.kept == report.overflowing == ()
    json.dumps(dataclasses.asdict(report))


def test_saving_leaves_the_model_as_it_was(tmp_path):
    model, _ = tiny_backbone(TEXTS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    save_four_bit(model, tmp_path)
    assert model.config.to_dict() == config
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_gradients_and_outputs_are_the_same_after_a_forward_pass_without_gradients(quantized):
    model = load_four_bit(quantized[1]).requires_grad_(False)

    def step():
        embeds = embed(model).requires_grad_()
        output = model.base_model(inputs_embeds=embeds).last_hidden_state
        output.square().sum().backward()
        return output.detach(), embeds.grad

    output, gradient = step()
    with torch.no_grad():
        evaluated = model.base_model(inputs_embeds=embed(model)).last_hidden_state
    assert torch.equal(evaluated, output)
    again, gradient_again = step()
    assert gradient.abs().max() > 0
    assert torch.equal(again, output)
    assert torch.equal(gradient_again, gradient)


def llama(**shape) -> nn.Module:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=50, **(sizes | shape))).eval()


def test_maps_whose_input_width_is_no_multiple_of_64_stay_in_float16_and_are_listed(tmp_path):
    model = llama(hidden_size=96)  # only down_proj reads a width of 128
    report = save_four_bit(model, tmp_path)
    attention = {f"model.layers.{i}.self_attn.{name}_proj" for i in (0, 1) for name in "qkvo"}
    assert set(report.kept) == attention | {
        f"model.layers.{i}.mlp.{name}_proj" for i in (0, 1) for name in ("gate", "up")
    }
    assert sum(report.bytes_before.values()) == 4 * sum(p.numel() for p in model.parameters())
    loaded = load_four_bit(tmp_path).state_dict()
    name = "model.layers.1.self_attn.q_proj.weight"
    assert torch.equal(loaded[name], model.state_dict()[name].half().float())
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert {name for name, m in theirs.named_modules() if isinstance(m, Linear4bit)} == {
        "model.layers.0.mlp.down_proj",
        "model.layers.1.mlp.down_proj",
    }


def test_an_untied_head_is_stored_beside_the_embeddings(tmp_path):
    model = llama(tie_word_embeddings=False)
    report = save_four_bit(model, tmp_path)
    assert report.bytes_before["embeddings"] == 2 * 50 * 64 * 4
    assert torch.equal(load_four_bit(tmp_path).lm_head.weight, model.lm_head.weight.half().float())


def test_a_tensor_beyond_float16_stays_in_float32_and_is_listed(tmp_path):
    model = llama()
    with torch.no_grad():
        model.model.norm.weight[3] = 1e5
    report = save_four_bit(model, tmp_path)
    assert report.overflowing == ("model.norm.weight",)
    assert torch.equal(load_four_bit(tmp_path).model.norm.weight, model.model.norm.weight)


def test_a_backbone_with_adapters_is_refused(tmp_path):
    model = inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj"]), llama())
    with pytest.raises(BackboneError, match="carries adapters"):
        save_four_bit(model, tmp_path)


def test_adapters_over_a_decoded_backbone_receive_gradients(folder):
    model = inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj", "down_proj"]), load_four_bit(folder))
    model.base_model(inputs_embeds=embed(model)).last_hidden_state.square().sum().backward()
    grads = {name: p.grad.abs().sum() for name, p in model.named_parameters() if "lora_B" in name}
    assert len(grads) == 4
    assert min(grads.values()) > 0


def test_only_a_four_bit_folder_is_recognised(folder, tmp_path):
    assert is_four_bit(folder)
    tiny_backbone(TEXTS)[0].save_pretrained(tmp_path / "plain")
    assert not is_four_bit(tmp_path / "plain")
    assert not is_four_bit(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("[1", encoding="utf-8")
    assert not is_four_bit(tmp_path)
    with pytest.raises(RunError, match=r"has config.json and model.safetensors"):
        load_four_bit(tmp_path / "plain")


def test_a_truncated_file_is_refused(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match="cannot be read"):
        load_four_bit(folder)


def test_missing_weights_are_refused(folder):
    (folder / WEIGHTS).unlink()
    with pytest.raises(RunError, match=r"has config.json and model.safetensors"):
        load_four_bit(folder)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("model.norm.weight", r"lacks the tensor model.norm.weight"),
        ("model.layers.0.mlp.up_proj.weight", "cannot be read"),
        ("model.layers.0.mlp.up_proj.weight.absmax", "cannot be read"),
    ],
)
def test_a_missing_tensor_is_refused(folder, lost, message):
    tensors = load_file(folder / WEIGHTS)
    del tensors[lost]
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(RunError, match=message):
        load_four_bit(folder)


def test_weights_that_do_not_fit_the_config_are_refused(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 192}), encoding="utf-8")
    with pytest.raises(RunError, match="cannot be read"):
        load_four_bit(folder)


def test_an_alien_four_bit_type_is_refused(folder):
    tensors = load_file(folder / WEIGHTS)
    save_file({name.replace("__nf4", "__fp4"): tensor for name, tensor in tensors.items()}, folder / WEIGHTS)
    with pytest.raises(BackboneError, match="must be NF4"):
        load_four_bit(folder)


def test_the_import_line_about_an_optional_cpu_kernel_is_silenced():
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)


def test_all_minilm_shrinks_as_computed(tmp_path):
    source = SHARED / "models" / "all-minilm-l6-v2"
    if not source.is_dir():
        pytest.skip(f"needs the model all-minilm-l6-v2 in {source.parent}; name its parent by DAREC_SHARED")
    model, _ = load_backbone(source)
    report = save_four_bit(model, tmp_path)
    weights = 6 * (4 * 384 * 384 + 2 * 384 * 1536)  # 10.6 million in 36 maps
    assert report.bytes_before["linear_maps"] == 4 * weights
    companions = report.bytes_after["linear_maps"] - (weights // 2 + weights // 64)
    assert 0 < companions < 36 * 1500 + weights // 64 // 256 * 4  # codebooks and settings, one set a map; outer scales
    assert report.bytes_before["embeddings"] == 4 * 384 * (30522 + 512 + 2)
    assert sum(report.bytes_after.values()) < 0.36 * sum(report.bytes_before.values())


def test_bytes_are_grouped_by_prefix_and_shared_storage_counts_once():
    weight = torch.zeros(3, 5)
    state = {"head.weight": weight, "head.tied": weight, "cf.items": torch.zeros(7, dtype=torch.float16)}
    assert bytes_by_prefix(state) == {"head": 60, "cf": 14}


def test_rankings_compare_as_by_hand():
    a = torch.tensor([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    b = torch.tensor([[4.0, 3.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0]])  # one of six pairs is turned in the first row
    assert compare_rankings(a, b, k=2) == pytest.approx({"overlap@2": 1.0, "kendall_tau": (4 / 6 + 1) / 2})
    assert compare_rankings(a, b, k=3)["overlap@3"] == pytest.approx((2 / 3 + 1) / 2)
    assert compare_rankings(a, -a, k=2) == pytest.approx({"overlap@2": 0.0, "kendall_tau": -1.0})


def test_removed_items_take_no_part_in_kendall_tau():
    a, b = np.array([[1.0, 2.0, -np.inf, -np.inf]]), np.array([[2.0, 1.0, -np.inf, -np.inf]])
    assert compare_rankings(a, b, k=1)["kendall_tau"] == pytest.approx(-1)


def test_rankings_of_other_shapes_or_too_few_items_are_refused():
    scores = np.zeros((2, 5))
    with pytest.raises(ConfigError, match="of one shape"):
        compare_rankings(scores, scores[:1], k=2)
    with pytest.raises(ConfigError, match="number of items, 5; got 10"):
        compare_rankings(scores, scores)
