"""A bank of adapters with gates on a GPU, over plain and over 4-bit weights: it must read as it does on a CPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from darec.config import AdapterSettings, Settings
from darec.data.interactions import Dataset
from darec.model.backbone import save_backbone, tiny_backbone
from darec.model.bank import Adaption
from darec.model.quantization import save_four_bit
from darec.model.recommender import DarecModel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU; torch sees none"),
]
HISTORIES = [[0, 5, 3, 7], [12, 13], [15]]
LAYERS = (("lora_attention:8", "parallel:16"), ("serial:8", "lora_mlp:4"))


@pytest.fixture(params=["plain", "four bit"])
def models(
    request: pytest.FixtureRequest, film_dataset: Dataset, make_model: Callable[..., DarecModel], tmp_path: Path
) -> list[DarecModel]:
    """The same weights, none of them zero, on the CPU and on the GPU."""
    source = make_model()
    settings: Settings = source.settings.model_copy(
        update={"adapters": AdapterSettings(layers=LAYERS, weights="gated")}
    )
    backbone, tokenizer = tiny_backbone(film_dataset.catalog.full_texts)
    save_backbone(backbone, tokenizer, tmp_path)
    if request.param == "four bit":
        save_four_bit(backbone, tmp_path)
    popularity = np.full(len(film_dataset.catalog), 9)
    models = [
        DarecModel.build(tmp_path, film_dataset.catalog, popularity, settings, device).eval()
        for device in ("cpu", "cuda")
    ]
    generator = torch.Generator().manual_seed(0)
    state = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
        for name, tensor in models[0].trained_state().items()
    }
    for model in models:
        model.load_trained_state({name: tensor.to(model.device) for name, tensor in state.items()})
    return models


@torch.no_grad()
def test_weights_and_states_are_those_of_the_cpu(models: list[DarecModel]):
    on_cpu, on_gpu = (model.read(HISTORIES) for model in models)
    assert on_gpu.states.device.type == "cuda"
    torch.testing.assert_close(
        on_gpu.adaption.weights.cpu(), on_cpu.adaption.weights, atol=0.02, rtol=0, equal_nan=True
    )
    assert (on_gpu.states.cpu() - on_cpu.states).norm() / on_cpu.states.norm() < 0.03


@torch.no_grad()
def test_switched_off_adapters_change_the_same_on_both(models: list[DarecModel]):
    changes = []
    for model in models:
        before = model.read(HISTORIES).states
        with model.bank.using(Adaption(switched_off=torch.tensor([[True, False], [False, True]]))):
            changes.append((model.read(HISTORIES).states - before).cpu())
    assert changes[0].abs().max() > 0.01
    assert (changes[0] - changes[1]).norm() / changes[0].norm() < 0.1
