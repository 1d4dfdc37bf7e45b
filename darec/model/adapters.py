"""Adapters on the backbone's layers. Every layer carries the same LoRA here; layers are named one by one all the same,
so that a layer may carry another size, or none."""

from dataclasses import dataclass

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedModel

from darec.config import AdapterSettings
from darec.errors import ConfigError
from darec.model.backbone import Place, linear_maps

ADAPTER = "darec"


@dataclass(frozen=True)
class LayerAdapter:
    """One adapter of one layer: where it sits and its size."""

    layer: int
    place: Place
    rank: int
    alpha: float


def plan_adapters(num_layers: int, settings: AdapterSettings) -> list[LayerAdapter]:
    """The same LoRA in every layer, at each of the places that the settings name."""
    if not settings.enabled:
        return []
    return [
        LayerAdapter(layer, place, settings.rank, settings.alpha)
        for layer in range(num_layers)
        for place in settings.places
    ]


def attach_adapters(model: PreTrainedModel, plan: list[LayerAdapter], dropout: float) -> None:
    """Add LoRA to `model` in place; freshly added, it leaves every output unchanged.

    Raises:
        ConfigError: a layer lacks a linear map at the planned place, or the rank exceeds its width.
    """
    if not plan:
        return
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for adapter in plan:
        names = linear_maps(model, adapter.place)[adapter.layer]
        if not names:
            raise ConfigError(f"Layer {adapter.layer} of the backbone has no linear map in its {adapter.place}.")
        if adapter.rank > model.config.hidden_size:
            raise ConfigError(
                f"An adapter's rank must not exceed the backbone's width {model.config.hidden_size}; "
                f"layer {adapter.layer} asks for {adapter.rank}. Set adapters.rank lower."
            )
        ranks |= dict.fromkeys(names, adapter.rank)
        alphas |= dict.fromkeys(names, adapter.alpha)
    config = LoraConfig(
        r=plan[0].rank,
        lora_alpha=plan[0].alpha,
        lora_dropout=dropout,
        target_modules=list(ranks),
        rank_pattern=ranks,
        alpha_pattern=alphas,
        fan_in_fan_out=model.config.model_type == "gpt2",
    )
    inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    # peft ignores names and patterns that match nothing, so what it did is checked.
    attached = {name: module.r[ADAPTER] for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    if attached != ranks:
        raise ConfigError(f"Adapters were asked for at {sorted(ranks)} but attached at {sorted(attached)}.")


def adapter_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """The adapters' own weights by name."""
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
