"""The adapter bank: the adapters of every layer, and the adaption weights that say how much each takes part.

    symbol  meaning                                                                  shape
    n       histories in the batch                                                   -
    S       items in the longest window                                              -
    R, T    rows and tokens of the packed batch                                      -
    L       layers of the backbone                                                   -
    A       adapters of the layer that has most, in the order of the plan            -
    O       options of one layer: none, then its adapters                            -
    w       adaption weights of a layer: softmax((static + gate) / temperature)      [n, S, O]

An adapter's output is multiplied by O * w, so that equal weights are plain adapters. `fixed` weights stay equal,
`static` ones have no gate. The gate is causal: for the tokens of item k it reads the CF state after item k - 1 and the
mean of the layer's input over the tokens of all items before k, so nothing of item k or later. Prefix tokens, and every
pass that is no history, have the static part alone. The gate's last map starts at zero.

Weights reach peft's LoRA by hooks on its two maps, and bottlenecks by hooks on the layer. What one pass needs is in one
`ContextVar`; nothing is stored on modules, so threads may share a model.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from darec.config import AdapterKind, AdapterSettings
from darec.data.sequences import PackedSequences
from darec.errors import ConfigError
from darec.model.adapters import ADAPTER, LayerAdapter, attach_adapters
from darec.model.backbone import transformer_layers

GATE_WIDTH = 32
BOTTLENECKS: tuple[AdapterKind, ...] = ("parallel", "serial")  # in the order in which they act


@dataclass(frozen=True, eq=False)
class Adaption:
    """What a caller asks of a bank; see `AdapterBank.using`.

    Attributes:
        switched_off: [L, A] bool; adapters that add nothing, while the weights of all others stay as they are.
        sizes: [L, A] int64; of each adapter only the first so many ranks, or hidden units, take part. 0 takes it out of
            its layer's options too, as if it had never been there. So a bank with the largest sizes holds all smaller
            banks; LoRA agree with smaller ones where their scaling does not depend on the rank.
        contributions: whether to measure contributions, which costs one more pass through each layer for each adapter.
    """

    switched_off: Tensor | None = None
    sizes: Tensor | None = None
    contributions: bool = False


@dataclass(frozen=True, eq=False)
class Record:
    """What a reading of n histories left behind.

    Attributes:
        weights: [n, S, L, A] float32 in 0..1, differentiable; what they lack to 1 is the weight of none. NaN where a
            window has no item or a layer no such adapter.
        contributions: [n, S, L, A] float32 >= 0, NaN likewise; None unless asked for. With h the layer's output at a
            token and h' the output of the same layer, run once more on the same input with this adapter alone
            switched off: the mean of |h - h'| / |h| (Euclidean norms) over the item's tokens.
    """

    weights: Tensor
    contributions: Tensor | None


@dataclass(frozen=True, eq=False)
class _Items:
    """Where a pass has its items, what the gate may know of them, and what each layer made of it.

    Attributes:
        place: [R, T] int64; a token's item as sequence * S + span, n * S for prefix and padding.
        tokens: [n, S] int64; tokens of each item.
        knowledge: [n, S, d] float; normalised CF state before each item, zeros where there is none to know.
        weights: layer -> [n, S, O].
        scales: layer -> [R, T, O]; weights by token, times O.
        contributions: layer -> [n, S, O - 1].
    """

    place: Tensor
    tokens: Tensor
    knowledge: Tensor
    weights: dict[int, Tensor] = field(default_factory=dict)
    scales: dict[int, Tensor] = field(default_factory=dict)
    contributions: dict[int, Tensor] = field(default_factory=dict)

    def sum(self, values: Tensor) -> Tensor:
        """[n, S, D]: [R, T, D] summed over each item's tokens."""
        n, s = self.tokens.shape
        values = values.float().flatten(0, 1)
        sums = values.new_zeros(n * s + 1, values.shape[-1]).index_add(0, self.place.flatten(), values)
        return sums[:-1].view(n, s, -1)

    def mean_before(self, states: Tensor) -> Tensor:
        """[n, S, D]: [R, T, D] averaged over the tokens of all earlier items of the window; zeros at the first."""
        # Shifted before it is accumulated: subtracting an item again would leave its rounding behind.
        sums, tokens = (F.pad(x[:, :-1], (0, 0, 1, 0)).cumsum(1) for x in (self.sum(states), self.tokens[..., None]))
        return sums / tokens.clamp(min=1)


@dataclass(frozen=True, eq=False)
class _Pass:
    key: object  # of the bank that it is meant for
    adaption: Adaption = Adaption()
    items: _Items | None = None


_PASS: ContextVar[_Pass | None] = ContextVar("darec_adapter_bank_pass", default=None)


class AdapterBank(nn.Module):
    """All adapters of a backbone: its LoRA (kept inside the backbone), bottlenecks, static logits and gates.

    Args:
        backbone: without adapters; they are attached here. Fresh, they leave every output unchanged.
        plan: which, layer by layer.
        settings: how they are weighed.
        collaborative_size: d, width of the CF states; 0 where there are none.

    Raises:
        ConfigError: the plan does not fit the backbone.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        plan: Sequence[LayerAdapter],
        settings: AdapterSettings,
        collaborative_size: int = 0,
    ):
        super().__init__()
        num_layers, width = backbone.config.num_hidden_layers, backbone.config.hidden_size
        self.layers = [tuple(adapter for adapter in plan if adapter.layer == number) for number in range(num_layers)]
        self.key = object()  # shared by every view of this bank: hooks know the first one only
        self.weighting, self.temperature = settings.weights, settings.temperature
        self.bottlenecks = nn.ModuleDict()
        self.static_logits = nn.ParameterDict()
        self.gates = nn.ModuleDict()
        _, modules = transformer_layers(backbone, num_layers)
        loras = dict(zip(plan, attach_adapters(backbone, list(plan), settings.dropout), strict=True))
        for number, adapters in enumerate(self.layers):
            if not adapters:
                continue
            options = 1 + len(adapters)
            if self.weighting != "fixed":
                self.static_logits[str(number)] = nn.Parameter(torch.zeros(options))
            if self.weighting == "gated":
                self.gates[str(number)] = Gate(width, collaborative_size, options)
            modules[number].register_forward_pre_hook(partial(self._enter, number), with_kwargs=True)
            modules[number].register_forward_hook(partial(self._leave, number), with_kwargs=True)
            for index, adapter in enumerate(adapters):
                if adapter.kind in BOTTLENECKS:
                    self.bottlenecks[f"{number}_{adapter.kind}"] = Bottleneck(width, adapter.size, settings.dropout)
                for lora in loras[adapter]:
                    lora.lora_A[ADAPTER].register_forward_hook(partial(self._cut, number, index))
                    lora.lora_B[ADAPTER].register_forward_hook(partial(self._weigh, number, index))

    @property
    def shape(self) -> tuple[int, int]:
        """(L, A)."""
        return len(self.layers), max(map(len, self.layers))

    # -- what callers ask ---------------------------------------------------------------------------------------------

    @contextmanager
    def using(self, adaption: Adaption) -> Iterator[None]:
        """Everything that this thread reads inside reads the backbone as asked; item encodings know no adapters.

        Raises:
            ConfigError: `switched_off` or `sizes` is not [L, A], or a size is none that the adapter has.
        """
        self._check(adaption)
        with _set(_Pass(self.key, adaption)):
            yield

    @contextmanager
    def reading(self, packed: PackedSequences, states_before: Tensor, kept: Tensor) -> Iterator[Callable[[], Record]]:
        """One pass over histories, in which weights may follow the gate; what it yields gives the record afterwards.

        Args:
            packed: the n histories.
            states_before: [n, S, d] the CF state before each item; d is 0 where there is no CF model.
            kept: [n] bool; false where the gate must know nothing of the CF path.
        """
        n, s, d = states_before.shape
        place = torch.where(packed.span >= 0, packed.sequence * s + packed.span, n * s)
        knowledge = F.layer_norm(states_before, (d,)) if d else states_before
        tokens = torch.bincount(place.flatten(), minlength=n * s + 1)[:-1].view(n, s)
        items = _Items(place, tokens, knowledge * kept[:, None, None])
        adaption = self._adaption()
        with _set(_Pass(self.key, adaption, items)):
            yield partial(self._record, items, adaption)

    def _record(self, items: _Items, adaption: Adaption) -> Record:
        weights = {layer: shares[..., 1:] for layer, shares in items.weights.items()}
        contributions = self._padded(items.contributions, items) if adaption.contributions else None
        return Record(self._padded(weights, items), contributions)

    # -- what hooks do ------------------------------------------------------------------------------------------------

    def _enter(self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a layer: the adaption weights of a reading, from the layer's own input."""
        items = self._items()
        if items is None or layer in items.weights:
            return
        states = _states(args, kwargs)
        static = self._static_logits(layer, states)
        logits = static.expand(*items.tokens.shape, -1)
        if self.weighting == "gated":
            logits = static + self.gates[str(layer)](items.knowledge, items.mean_before(states))
        items.weights[layer] = shares = self._softmax(layer, logits)
        # By token: its item's weights, or the static ones for prefix and padding.
        table = torch.cat([shares.flatten(0, 1), self._softmax(layer, static)[None]])
        items.scales[layer] = table[items.place] * self._num_options(layer)

    def _cut(self, layer: int, index: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """After a LoRA's first map: only its first ranks."""
        size = self._size(layer, index)
        if size == output.shape[-1]:
            return None
        return output * (torch.arange(output.shape[-1], device=output.device) < size)

    def _weigh(self, layer: int, index: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """After a LoRA's second map: its share."""
        return self._scaled(layer, index, output)

    def _leave(self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """After a layer: its bottlenecks, the parallel one first, and what a reading measures."""
        hidden = _hidden(output)
        index_of = {adapter.kind: index for index, adapter in enumerate(self.layers[layer])}
        for kind in BOTTLENECKS:
            index = index_of.get(kind)
            if index is not None and self._takes_part(layer, index):
                source = _states(args, kwargs) if kind == "parallel" else hidden
                change = self.bottlenecks[f"{layer}_{kind}"](source, self._size(layer, index))
                hidden = hidden + self._scaled(layer, index, change).to(hidden.dtype)
        items = self._items()
        if items is not None and self._adaption().contributions:
            items.contributions[layer] = self._measure(layer, items, hidden, lambda: module(*args, **kwargs))
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

    # -- weights ------------------------------------------------------------------------------------------------------

    def _scaled(self, layer: int, index: int, output: Tensor) -> Tensor:
        """An adapter's output [R, T, *] times its share; without gradient to the adapter where it takes no part."""
        if not self._takes_part(layer, index):
            return torch.zeros_like(output)
        if self.weighting == "fixed":
            return output
        items = self._items()
        if items is not None:
            return output * items.scales[layer][..., index + 1, None].to(output.dtype)
        shares = self._softmax(layer, self._static_logits(layer, output))
        return output * (self._num_options(layer) * shares[index + 1]).to(output.dtype)

    def _softmax(self, layer: int, logits: Tensor) -> Tensor:
        """[..., O] float32: shares of the options that are present; they sum to 1."""
        absent = [False, *(self._size(layer, index) == 0 for index in range(len(self.layers[layer])))]
        scaled = logits.float() / self.temperature
        if any(absent):
            scaled = scaled.masked_fill(torch.tensor(absent, device=scaled.device), -torch.inf)
        return scaled.softmax(dim=-1)

    def _static_logits(self, layer: int, states: Tensor) -> Tensor:
        """[O]; zeros where weights are fixed."""
        if self.weighting == "fixed":
            return states.new_zeros(1 + len(self.layers[layer]))
        return self.static_logits[str(layer)]

    def _num_options(self, layer: int) -> int:
        return 1 + sum(self._size(layer, index) > 0 for index in range(len(self.layers[layer])))

    def _measure(self, layer: int, items: _Items, full: Tensor, rerun: Callable[[], Any]) -> Tensor:
        """[n, S, O - 1]: the contribution of each of the layer's adapters."""
        adaption = self._adaption()
        relative = []
        for index in range(len(self.layers[layer])):
            off = torch.zeros(self.shape, dtype=torch.bool) if adaption.switched_off is None else adaption.switched_off
            off = off.clone()
            off[layer, index] = True
            with _set(_Pass(self.key, replace(adaption, switched_off=off, contributions=False), items)):
                change = full - _hidden(rerun())
            relative.append(change.float().norm(dim=-1) / full.float().norm(dim=-1))
        return items.sum(torch.stack(relative, dim=-1)) / items.tokens[..., None]

    def _padded(self, parts: dict[int, Tensor], items: _Items) -> Tensor:
        """[n, S, L, A] float32 from [n, S, *] by layer; NaN where there is no item or no adapter."""
        values = torch.full((*items.tokens.shape, *self.shape), torch.nan, device=items.tokens.device)
        for layer, part in parts.items():
            present = [index for index in range(part.shape[-1]) if self._size(layer, index)]
            values[:, :, layer, present] = part[..., present]
        return values.masked_fill((items.tokens == 0)[..., None, None], torch.nan)

    # -- what is asked of the pass under way --------------------------------------------------------------------------

    def _adaption(self) -> Adaption:
        current = _PASS.get()
        return current.adaption if current is not None and current.key is self.key else Adaption()

    def _items(self) -> _Items | None:
        current = _PASS.get()
        return current.items if current is not None and current.key is self.key else None

    def _size(self, layer: int, index: int) -> int:
        sizes = self._adaption().sizes
        return self.layers[layer][index].size if sizes is None else int(sizes[layer, index])

    def _takes_part(self, layer: int, index: int) -> bool:
        off = self._adaption().switched_off
        return self._size(layer, index) > 0 and not (off is not None and bool(off[layer, index]))

    def _check(self, adaption: Adaption) -> None:
        for name in ("switched_off", "sizes"):
            value = getattr(adaption, name)
            if value is not None and tuple(value.shape) != self.shape:
                raise ConfigError(
                    f"{name} must have one entry for each layer and adapter, {list(self.shape)}; "
                    f"got {list(value.shape)}. Take the shape from the bank."
                )
        if adaption.sizes is None:
            return
        for number, (adapters, sizes) in enumerate(zip(self.layers, adaption.sizes.tolist(), strict=True), start=1):
            for adapter, size in zip(adapters, sizes, strict=False):  # the rest is padding
                if not 0 <= size <= adapter.size:
                    raise ConfigError(
                        f"A size of layer {number}'s {adapter.kind} lies between 0 and {adapter.size}; got {size}."
                    )


class Bottleneck(nn.Module):
    """A small MLP beside or behind a layer: normalise, narrow, GELU, widen; the last map starts at zero.

    Args:
        width: D.
        size: hidden units.
        dropout: of its normalised input.

    Source: Houlsby et al., ICML 2019 (serial); He et al., ICLR 2022 (parallel).
    """

    def __init__(self, width: int, size: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states: Tensor, size: int) -> Tensor:
        """[R, T, D] -> [R, T, D] through the first `size` hidden units."""
        states = self.dropout(F.layer_norm(states.float(), states.shape[-1:]))
        hidden = F.gelu(F.linear(states, self.down.weight[:size], self.down.bias[:size]))
        return F.linear(hidden, self.up.weight[:, :size], self.up.bias)


class Gate(nn.Module):
    """What is added to a layer's static logits for each item; 0 at first.

    Args:
        width: D.
        collaborative_size: d, or 0.
        options: O.
    """

    def __init__(self, width: int, collaborative_size: int, options: int):
        super().__init__()
        self.inner = nn.Linear(collaborative_size + width, GATE_WIDTH)
        self.outer = nn.Linear(GATE_WIDTH, options, bias=False)
        nn.init.zeros_(self.outer.weight)

    def forward(self, knowledge: Tensor, mean_before: Tensor) -> Tensor:
        """[n, S, d] normalised CF states and [n, S, D] mean layer inputs, both of what came before -> [n, S, O]."""
        mean = F.layer_norm(mean_before, mean_before.shape[-1:])
        return self.outer(F.gelu(self.inner(torch.cat([knowledge, mean], dim=-1))))


def balance_loss(weights: Tensor) -> Tensor:
    """How far each layer's mean weights over all items are from equal: ln O minus their entropy, averaged over layers.

    Histories may differ as they like: only options that nobody uses cost anything.

    Args:
        weights: [n, S, L, A] as `Record` has them.

    Returns:
        Scalar >= 0; 0 without adapters. Source: the entropy of the mean, as in load balancing of mixtures of experts.
    """
    losses = []
    for shares in weights.unbind(dim=2):
        present = ~shares[0, 0].isnan()  # every window has a first item
        if present.any():
            used = shares[:, :, present]
            mean = used[~used[..., 0].isnan()].mean(dim=0)
            mean = torch.cat([1 - mean.sum(dim=0, keepdim=True), mean])
            losses.append(math.log(len(mean)) + (mean * mean.clamp(min=1e-9).log()).sum())
    return torch.stack(losses).mean() if losses else weights.new_zeros(())


def _states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A layer's input among its arguments."""
    states: Tensor = args[0] if args else kwargs["hidden_states"]
    return states


def _hidden(output: Any) -> Tensor:
    """A layer's output; some architectures return it with others in a tuple."""
    hidden: Tensor = output if isinstance(output, Tensor) else output[0]
    return hidden


@contextmanager
def _set(current: _Pass) -> Iterator[None]:
    token = _PASS.set(current)
    try:
        yield
    finally:
        _PASS.reset(token)
