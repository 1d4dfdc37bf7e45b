"""What is searched: which adapters each layer has, and how large.

    variable  values                                                                       one for each
    kind_b    none, or one or two kinds of adapters (`KINDS`)                              block b of layers
    size_b    4 to 64, uniform in logarithms; of all adapters of the block; idle for none  block b of layers

A block is one layer, or several neighbours where there would be more than `MAX_VARIABLES` variables: a Gaussian process
learns little about more from a hundred trials. Every variable always exists, whatever the others are, because the
sampler falls back to random draws on the ones that do not.

An architecture is what `adapters.layers` takes: for each layer its adapters, say
`(("lora_attention:8", "parallel:8"), ())`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from darec.config import ADAPTER_KINDS, ADAPTER_SIZES, AdapterKind, Settings, parse_adapter
from darec.data.catalog import Catalog
from darec.errors import BackboneError, ConfigError
from darec.model.adapters import LayerAdapter, layer_adapter
from darec.model.backbone import Place, linear_maps, tiny_backbone
from darec.model.bank import GATE_WIDTH

Architecture = tuple[tuple[str, ...], ...]
Params = dict[str, str | int]  # value of each variable

KINDS: dict[str, tuple[AdapterKind, ...]] = {
    "none": (),
    "attention": ("lora_attention",),
    "mlp": ("lora_mlp",),
    "attention+mlp": ("lora_attention", "lora_mlp"),
    "parallel": ("parallel",),
    "serial": ("serial",),
    "attention+parallel": ("lora_attention", "parallel"),
    "attention+serial": ("lora_attention", "serial"),
    "mlp+parallel": ("lora_mlp", "parallel"),
    "mlp+serial": ("lora_mlp", "serial"),
    "parallel+serial": ("parallel", "serial"),
}
UNIFORM = "attention+mlp"  # the kind of a LoRA that is the same in all layers
MAX_VARIABLES = 20
_PLACES: tuple[Place, ...] = ("attention", "mlp")


@dataclass(frozen=True)
class Space:
    """All architectures that a search may choose from.

    Attributes:
        width: D of the backbone.
        map_widths: for each layer, inputs plus outputs of all its linear maps in attention, and in the MLP.
        gate_inputs: what a layer's gate reads, D + d; 0 where weights have no gate.
        has_weights: whether a layer with adapters learns adaption weights.
        kinds: those of `KINDS` that may be chosen.
        max_size: the largest size.
    """

    width: int
    map_widths: tuple[tuple[int, int], ...]
    gate_inputs: int
    has_weights: bool = True
    kinds: tuple[str, ...] = tuple(KINDS)
    max_size: int = ADAPTER_SIZES[-1]

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ConfigError(
                f"A layer's kind is one of {', '.join(KINDS)}; for layer 1 and all others {unknown[0]!r} was given."
            )
        if UNIFORM not in self.kinds:
            raise ConfigError(
                f"A search is measured against LoRA of one size in all layers, so its kinds must hold {UNIFORM}; "
                f"got {', '.join(self.kinds) or 'none at all'}. Add it."
            )
        if self.max_size > self.width:
            raise ConfigError(
                f"An adapter's size must not exceed the backbone's width {self.width}; "
                f"layer 1 would be searched up to {self.max_size}. Make the largest size smaller."
            )
        if self.max_size not in ADAPTER_SIZES:
            raise ConfigError(
                f"The largest size lies between {ADAPTER_SIZES[0]} and {ADAPTER_SIZES[-1]}; layer 1 and all others "
                f"would be searched up to {self.max_size}."
            )
        for layer, widths in enumerate(self.map_widths):
            for place, width in zip(_PLACES, widths, strict=True):
                if not width and f"lora_{place}" in self.adapter_kinds:
                    raise ConfigError(f"Layer {layer + 1} of the backbone has no linear map in its {place}.")

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.map_widths)

    @property
    def layers_per_block(self) -> int:
        """Neighbouring layers that share their variables."""
        return math.ceil(2 * self.num_layers / MAX_VARIABLES)

    @property
    def blocks(self) -> list[range]:
        """The layers of each block; the last one may be shorter."""
        step = self.layers_per_block
        return [range(first, min(first + step, self.num_layers)) for first in range(0, self.num_layers, step)]

    @property
    def adapter_kinds(self) -> tuple[AdapterKind, ...]:
        """What a layer may hold, in the order of a bank that holds it all."""
        return tuple(kind for kind in ADAPTER_KINDS if any(kind in KINDS[name] for name in self.kinds))

    # -- variables and architectures ----------------------------------------------------------------------------------

    def architecture(self, params: Mapping[str, str | int]) -> Architecture:
        """The architecture that the variables describe."""
        layers: list[tuple[str, ...]] = []
        for block, numbers in enumerate(self.blocks):
            size = params[f"size_{block}"]
            layers += [tuple(f"{kind}:{size}" for kind in KINDS[str(params[f"kind_{block}"])])] * len(numbers)
        return tuple(layers)

    def params(self, architecture: Architecture) -> Params:
        """The variables that describe an architecture; the idle size of none is the smallest.

        Raises:
            ConfigError: the space does not hold it, naming the layer.
        """
        self._check_layers(architecture)
        names = {frozenset(kinds): name for name, kinds in KINDS.items() if name in self.kinds}
        params: Params = {}
        for block, numbers in enumerate(self.blocks):
            for layer in numbers:
                parsed = [parse_adapter(entry) for entry in architecture[layer]]
                name = names.get(frozenset(kind for kind, _ in parsed))
                sizes = {size for _, size in parsed} or {ADAPTER_SIZES[0]}
                own: Params = {f"kind_{block}": name or "", f"size_{block}": max(sizes)}
                differs = layer > numbers[0] and any(params[key] != value for key, value in own.items())
                if name is None or len(sizes) > 1 or max(sizes) > self.max_size or differs:
                    raise ConfigError(
                        f"A layer has one of the kinds {', '.join(self.kinds)}, with one size up to {self.max_size}, "
                        f"the same in layers {numbers[0] + 1} to {numbers[-1] + 1}; layer {layer + 1} has "
                        f"{list(architecture[layer])}."
                    )
                params |= own
        return params

    def draw(self, random: np.random.Generator) -> Architecture:
        """A random architecture: kinds uniform, sizes uniform in logarithms."""
        params: Params = {}
        for block in range(len(self.blocks)):
            params[f"kind_{block}"] = self.kinds[random.integers(len(self.kinds))]
            low, high = math.log(ADAPTER_SIZES[0] - 0.5), math.log(self.max_size + 0.5)
            size = round(math.exp(random.uniform(low, high)))
            params[f"size_{block}"] = min(max(size, ADAPTER_SIZES[0]), self.max_size)
        return self.architecture(params)

    def uniform(self, size: int) -> Architecture:
        """LoRA of one size on attention and MLP of every layer."""
        return (tuple(f"{kind}:{size}" for kind in KINDS[UNIFORM]),) * self.num_layers

    def uniform_sizes(self) -> list[int]:
        """Sizes of uniform LoRA that a search begins with: powers of two."""
        return [size for size in (4, 8, 16, 32, 64) if size <= self.max_size]

    def matching_uniform(self, parameters: int) -> Architecture:
        """The uniform LoRA whose number of parameters is nearest."""
        sizes = range(ADAPTER_SIZES[0], self.max_size + 1)
        return min(map(self.uniform, sizes), key=lambda architecture: abs(self.parameters(architecture) - parameters))

    # -- what an architecture costs, and what it is in a bank ---------------------------------------------------------

    def parameters(self, architecture: Architecture) -> int:
        """Trainable numbers that the adapters add: their own, static logits and gates.

        LoRA of rank r on a map from I to O has r (I + O), a bottleneck of s units 2 D s + s + D; a layer with A
        adapters has 1 + A static logits and a gate of 32 (inputs + 1) + 32 (1 + A).
        """
        self._check_layers(architecture)
        total = 0
        for (attention, mlp), entries in zip(self.map_widths, architecture, strict=True):
            for kind, size in map(parse_adapter, entries):
                if kind in ("lora_attention", "lora_mlp"):
                    total += size * (attention if kind == "lora_attention" else mlp)
                else:
                    total += 2 * self.width * size + size + self.width
            if entries and self.has_weights:
                total += 1 + len(entries)
                if self.gate_inputs:
                    total += GATE_WIDTH * (self.gate_inputs + 1) + GATE_WIDTH * (1 + len(entries))
        return total

    def bank(self) -> list[LayerAdapter]:
        """The adapters of a bank that holds every architecture: all kinds at the largest size in every layer."""
        return [
            layer_adapter(layer, kind, self.max_size) for layer in range(self.num_layers) for kind in self.adapter_kinds
        ]

    def sizes(self, architecture: Architecture) -> Tensor:
        """[L, A] int64: how much of each adapter of that bank an architecture takes; 0 for none of it."""
        self._check_layers(architecture)
        sizes = torch.zeros(self.num_layers, len(self.adapter_kinds), dtype=torch.long)
        for layer, entries in enumerate(architecture):
            for kind, size in map(parse_adapter, entries):
                sizes[layer, self.adapter_kinds.index(kind)] = size
        return sizes

    def _check_layers(self, architecture: Sequence[Sequence[str]]) -> None:
        if len(architecture) != self.num_layers:
            raise ConfigError(f"An architecture has {self.num_layers} layers; got {len(architecture)}.")


def read_space(
    backbone: str | None,
    catalog: Catalog,
    settings: Settings,
    seed: int = 0,
    kinds: Sequence[str] | None = None,
    max_size: int | None = None,
) -> Space:
    """The space over a backbone, from its shape alone; no weights are loaded.

    Args:
        backbone: hub name or folder; None where `settings.backbone.tiny`.
        catalog: a tiny backbone's vocabulary comes from it.
        settings: `adapters.weights` and the CF model's size count among the parameters.
        seed: of a tiny backbone.
        kinds: names of `KINDS`; all of them if not given.
        max_size: 64, or the backbone's width where that is smaller, if not given.

    Raises:
        ConfigError: the space cannot be built on the backbone.
        BackboneError: there is no such backbone.
    """
    model = _shape_of(backbone, catalog, settings, seed)
    width = model.config.hidden_size
    names = {place: linear_maps(model, place) for place in _PLACES}
    map_widths = [
        tuple(sum(sum(model.get_submodule(name).weight.shape) for name in names[place][layer]) for place in _PLACES)
        for layer in range(model.config.num_hidden_layers)
    ]
    weights, own = settings.adapters.weights, settings.collaborative
    return Space(
        width=width,
        map_widths=tuple((attention, mlp) for attention, mlp in map_widths),
        gate_inputs=width + (own.hidden_size if own.enabled else 0) if weights == "gated" else 0,
        has_weights=weights != "fixed",
        kinds=tuple(KINDS) if kinds is None else tuple(kinds),
        max_size=min(ADAPTER_SIZES[-1], width) if max_size is None else max_size,
    )


def _shape_of(backbone: str | None, catalog: Catalog, settings: Settings, seed: int) -> PreTrainedModel:
    if backbone is None:
        if not settings.backbone.tiny:
            raise ConfigError("A search needs a backbone: give --backbone a hub name or a folder, or --preset smoke.")
        return tiny_backbone(catalog.full_texts, seed=seed)[0]
    try:
        config = AutoConfig.from_pretrained(backbone)
        config.is_decoder = True
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(
            "The backbone must be a Hugging Face causal language model by hub name or folder; "
            f"{backbone!r} could not be read: {str(error).strip().splitlines()[0]}"
        ) from error
