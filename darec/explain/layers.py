"""What the adapters of each layer are, and what they do while one history is read."""

from dataclasses import dataclass

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from darec.config import AdapterKind
from darec.data.catalog import History
from darec.explain.scoring import check_history
from darec.model.adapters import ADAPTER, LayerAdapter
from darec.model.backbone import linear_maps
from darec.model.bank import BOTTLENECKS, Adaption
from darec.model.recommender import DarecModel


@dataclass(frozen=True)
class AdapterReading:
    """One adapter of one layer.

    Attributes:
        layer: from 0.
        kind: where it sits.
        size: rank of a LoRA, width of a bottleneck.
        parameters: trained numbers in it; the layer's weights and gate not counted.
        weight: its adaption weight in 0..1, mean over the items of the window; what a layer's weights lack to 1 is the
            weight of none. Equal for all options where weights are fixed.
        contribution: >= 0, mean over the items of the window; see `darec.model.bank.Record`.
    """

    layer: int
    kind: AdapterKind
    size: int
    parameters: int
    weight: float
    contribution: float


@torch.no_grad()
def read_adapters(model: DarecModel, history: History) -> list[AdapterReading]:
    """Every adapter of a model while it reads a history, layer by layer, in the order of the plan.

    Args:
        model: in evaluation mode.
        history: oldest first.

    Raises:
        DataError: the history cannot be read.
    """
    check_history(model, history)
    if not model.plan:
        return []
    with model.bank.using(Adaption(contributions=True)):
        record = model.read([history]).adaption
    assert record.contributions is not None
    weights, contributions = (values[0].double().cpu().numpy() for values in (record.weights, record.contributions))
    return [
        AdapterReading(
            layer,
            adapter.kind,
            adapter.size,
            _parameters(model, adapter),
            float(np.nanmean(weights[:, layer, index])),
            float(np.nanmean(contributions[:, layer, index])),
        )
        for layer, adapters in enumerate(model.bank.layers)
        for index, adapter in enumerate(adapters)
    ]


def _parameters(model: DarecModel, adapter: LayerAdapter) -> int:
    if adapter.kind in BOTTLENECKS:
        return _count(model.bank.bottlenecks[f"{adapter.layer}_{adapter.kind}"])
    # peft keeps each map that it wraps under the name base_layer.
    names = linear_maps(model.backbone, "attention" if adapter.kind == "lora_attention" else "mlp")[adapter.layer]
    wrapped = [name.removesuffix(".base_layer") for name in names if name.endswith(".base_layer")]
    loras = [module for name in wrapped if isinstance(module := model.backbone.get_submodule(name), LoraLayer)]
    return sum(_count(lora.lora_A[ADAPTER]) + _count(lora.lora_B[ADAPTER]) for lora in loras)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
