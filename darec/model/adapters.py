"""Which adapters each layer of the backbone carries, and LoRA, the kind that peft attaches.

    kind             reads                             adds to
    lora_attention   input of each attention map       output of that map
    lora_mlp         input of each map of the MLP      output of that map
    parallel         the layer's input                 the layer's output
    serial           the layer's output                the same

The bottlenecks, parallel and serial, and the weights of all four are in `bank.py`.
"""

from dataclasses import dataclass

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedModel

from darec.config import AdapterKind, AdapterSettings, parse_adapter
from darec.errors import ConfigError
from darec.model.backbone import Place, linear_maps

ADAPTER = "darec"
LAYERWISE_SCALING = 2.0  # alpha over rank wherever layers differ: a LoRA's first ranks then are a smaller LoRA
_LORA_PLACES: dict[AdapterKind, Place] = {"lora_attention": "attention", "lora_mlp": "mlp"}


@dataclass(frozen=True)
class LayerAdapter:
    """One adapter of one layer.

    Attributes:
        layer: from 0.
        kind: where it sits.
        size: rank of a LoRA, width of a bottleneck.
        alpha: of a LoRA, whose output is scaled by alpha / size; bottlenecks are not scaled and have 0.
    """

    layer: int
    kind: AdapterKind
    size: int
    alpha: float = 0.0

    def __str__(self) -> str:
        if self.kind in _LORA_PLACES:
            return f"{self.kind} rank {self.size} alpha {self.alpha:g}"
        return f"{self.kind} width {self.size}"


def plan_adapters(num_layers: int, settings: AdapterSettings) -> list[LayerAdapter]:
    """The adapters that the settings name, layer by layer: those of `layers`, or else the same LoRA in every layer.

    Raises:
        ConfigError: `layers` has another number of layers than the backbone.
    """
    if not settings.enabled:
        return []
    if settings.layers is None:
        kinds = [kind for place in settings.places for kind, its_place in _LORA_PLACES.items() if its_place == place]
        return [
            LayerAdapter(layer, kind, settings.rank, settings.alpha) for layer in range(num_layers) for kind in kinds
        ]
    if len(settings.layers) != num_layers:
        raise ConfigError(
            f"Setting adapters.layers needs one entry for each of the backbone's {num_layers} layers; "
            f"got {len(settings.layers)}, so layer {min(num_layers, len(settings.layers)) + 1} has no counterpart. "
            "Write [] for a layer without adapters."
        )
    return [
        layer_adapter(layer, *parse_adapter(entry))
        for layer, entries in enumerate(settings.layers)
        for entry in entries
    ]


def layer_adapter(layer: int, kind: AdapterKind, size: int) -> LayerAdapter:
    """An adapter as `adapters.layers` has it; LoRA with alpha 2 * size, so that its scaling is 2 whatever its size."""
    return LayerAdapter(layer, kind, size, LAYERWISE_SCALING * size if kind in _LORA_PLACES else 0.0)


def attach_adapters(model: PreTrainedModel, plan: list[LayerAdapter], dropout: float) -> list[list[LoraLayer]]:
    """Add the LoRA of a plan to `model` in place; freshly added, it leaves every output unchanged.

    Returns:
        for each adapter of the plan the modules it was added to; none for a bottleneck.

    Raises:
        ConfigError: a layer lacks a linear map at the planned place, or an adapter's size exceeds its width.
    """
    names: list[list[str]] = []
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for adapter in plan:
        if adapter.size > model.config.hidden_size:
            raise ConfigError(
                f"An adapter's size must not exceed the backbone's width {model.config.hidden_size}; "
                f"layer {adapter.layer + 1} asks for {adapter.kind} of {adapter.size}. Make it smaller."
            )
        place = _LORA_PLACES.get(adapter.kind)
        names.append([] if place is None else linear_maps(model, place)[adapter.layer])
        if place is not None and not names[-1]:
            raise ConfigError(f"Layer {adapter.layer + 1} of the backbone has no linear map in its {place}.")
        ranks |= dict.fromkeys(names[-1], adapter.size)
        alphas |= dict.fromkeys(names[-1], adapter.alpha)
    if not ranks:
        return [[] for _ in plan]
    config = LoraConfig(
        r=next(iter(ranks.values())),
        lora_alpha=next(iter(alphas.values())),
        lora_dropout=dropout,
        target_modules=list(ranks),
        rank_pattern=ranks,
        alpha_pattern=alphas,
        fan_in_fan_out=model.config.model_type == "gpt2",
    )
    inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    # peft ignores names and patterns that match nothing, so what it did is checked.
    modules = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    attached = {name: module.r[ADAPTER] for name, module in modules.items()}
    if attached != ranks:
        raise ConfigError(f"Adapters were asked for at {sorted(ranks)} but attached at {sorted(attached)}.")
    return [[modules[name] for name in of_adapter] for of_adapter in names]


def adapter_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """The own weights of all LoRA by name."""
    return {name: tensor for name, tensor in model.state_dict().items() if _is_adapter(name)}


def load_adapter_state(model: PreTrainedModel, state: dict[str, Tensor]) -> None:
    """Put saved adapter weights in place; names and shapes must agree exactly.

    Raises:
        ConfigError: a weight is missing, unknown or of another shape.
    """
    own = adapter_state(model)
    if differing := unlike(own, state):
        raise ConfigError(f"Saved adapters do not fit the backbone: {differing[:3]} differ.")
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)


def unlike(own: dict[str, Tensor], saved: dict[str, Tensor]) -> list[str]:
    """Names, sorted, of the tensors that only one of them has, or that have another shape in the other."""
    shapes = ({(name, tensor.shape) for name, tensor in state.items()} for state in (own, saved))
    return sorted({name for name, _ in set.symmetric_difference(*shapes)})


def _is_adapter(name: str) -> bool:
    return ".lora_" in name
