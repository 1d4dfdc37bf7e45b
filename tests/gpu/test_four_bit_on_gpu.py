"""What only a CUDA GPU can show of 4-bit backbones. Tolerances are those of bfloat16, whose steps are 0.4 % wide."""

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file
from torch import nn

from darec.model.backbone import tiny_backbone
from darec.model.quantization import WEIGHTS, load_four_bit, save_four_bit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU; torch sees none"),
]
TEXTS = ["Heat (1995), Action, Crime", "Toy Story (1995), Animation", "Alien (1979), Horror"]


@pytest.fixture(params=["llama", "qwen3", "gpt2", "bert"])
def family(request):
    return request.param


@pytest.fixture
def folder(family, tmp_path):
    save_four_bit(tiny_backbone(TEXTS, family)[0], tmp_path / "backbone")
    return tmp_path / "backbone"


def embed(model) -> torch.Tensor:
    width = model.get_input_embeddings().embedding_dim
    return torch.randn(4, 9, width, generator=torch.Generator().manual_seed(0))


def run(model) -> torch.Tensor:
    return model.base_model(inputs_embeds=embed(model).to(model.device)).last_hidden_state


def out_by_in(module: nn.Module) -> torch.Tensor:
    return module.weight if isinstance(module, nn.Linear) else module.weight.T


def test_linear_maps_are_four_bit_and_the_rest_float32(folder):
    model = load_four_bit(folder, "cuda")
    assert sum(isinstance(module, Linear4bit) for module in model.modules()) >= 8
    assert {p.dtype for p in model.parameters()} == {torch.uint8, torch.float32}
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_forward_pass_is_close_to_the_decoded_model_on_cpu(folder):
    with torch.no_grad():
        on_gpu, on_cpu = run(load_four_bit(folder, "cuda")).cpu(), run(load_four_bit(folder))
    assert on_gpu.dtype == torch.float32
    assert (on_gpu - on_cpu).norm() / on_cpu.norm() < 0.02


def test_a_training_step_gives_adapters_the_gradients_of_the_decoded_model(folder, family):
    targets = {"gpt2": ["c_attn", "c_fc"], "bert": ["query", "intermediate.dense"]}.get(family, ["q_proj", "down_proj"])

    def gradients(device):
        config = LoraConfig(r=4, target_modules=targets, fan_in_fan_out=family == "gpt2" and device == "cpu")
        model = inject_adapter_in_model(config, load_four_bit(folder, device))
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_A" in name:  # lora_B starts at zero, so only its gradient is not
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / 8)
        run(model)[..., 0].square().sum().backward()
        return {name: p.grad.cpu().flatten() for name, p in model.named_parameters() if "lora_B" in name}

    on_gpu, on_cpu = gradients("cuda"), gradients("cpu")
    assert on_gpu.keys() == on_cpu.keys()
    assert len(on_gpu) >= 4
    for name, gradient in on_gpu.items():
        assert torch.cosine_similarity(gradient, on_cpu[name], dim=0) > 0.99, name
        assert 0.9 < gradient.norm() / on_cpu[name].norm() < 1.1, name


def test_a_forward_pass_without_gradients_does_not_cost_the_next_ones_gradient(folder):
    model = load_four_bit(folder, "cuda")
    with torch.no_grad():
        run(model)
    embeds = embed(model).cuda().requires_grad_()
    model.base_model(inputs_embeds=embeds).last_hidden_state.square().sum().backward()
    assert embeds.grad.abs().max() > 0


def test_what_is_quantized_on_the_gpu_is_read_on_the_cpu_as_the_same_values(family, tmp_path):
    save_four_bit(tiny_backbone(TEXTS, family)[0].to("cuda"), tmp_path)
    on_gpu, on_cpu = load_four_bit(tmp_path, "cuda"), load_four_bit(tmp_path)
    for name, module in on_gpu.named_modules():
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            state.dtype = torch.float32
            decoded = dequantize_4bit(module.weight, state).cpu()
            torch.testing.assert_close(decoded, out_by_in(on_cpu.get_submodule(name)), rtol=1e-6, atol=1e-7)


def test_gpu_and_cpu_quantize_alike(family, folder, tmp_path):
    save_four_bit(tiny_backbone(TEXTS, family)[0].to("cuda"), tmp_path / "gpu")
    first, second = load_file(folder / WEIGHTS), load_file(tmp_path / "gpu" / WEIGHTS)
    assert first.keys() == second.keys()
    packed = [name for name, tensor in first.items() if f"{name}.absmax" in first]
    different = sum((first[name] != second[name]).sum().item() for name in packed)
    # A value halfway between two codes may round either way; no more than that.
    assert different <= 0.001 * sum(first[name].numel() for name in packed)
