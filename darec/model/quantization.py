"""Four-bit backbones: NF4 with double quantization, written once, read on a GPU as 4 bit and on a CPU decoded.

What is quantized: the linear maps inside the transformer layers, where almost all parameters are. Embeddings, output
head, norms and biases are stored in float16: ten bits of mantissa against bfloat16's seven, and a tensor that would
overflow float16's range stays in float32.

The folder is in the format of transformers and bitsandbytes: `AutoModelForCausalLM.from_pretrained` reads it too. For a
weight [out, in], flattened row by row into blocks of 64 values, it holds

    packed      [out * in / 2, 1] uint8   two indices into the codebook a byte, the first in the high half
    quant_map   [16] float32              the NF4 codebook: quantiles of a normal distribution, scaled to [-1, 1]
    absmax      [blocks] uint8            each block's largest magnitude, itself quantized (the double quantization)
    nested_*    float32                   the codebook, the scales (one for 256 blocks) and the offset of `absmax`

Source: Dettmers et al., QLoRA, NeurIPS 2023, section 3.
"""

import copy
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from darec.errors import BackboneError, ConfigError, RunError

BLOCK = 64  # values that share a scale
WEIGHTS = "model.safetensors"
_STATE = ".quant_state.bitsandbytes__nf4"


@dataclass(frozen=True)
class QuantizationReport:
    """What quantization did to the size of a backbone; `dataclasses.asdict` makes it plain.

    Attributes:
        bytes_before: part -> bytes with every value in float32. Parts: `linear_maps` (weights inside the layers),
            `embeddings` (with the output head, once if tied), `other` (norms, biases, maps outside the layers).
        bytes_after: part -> bytes in the written file.
        kept: linear maps inside the layers left in float16, because their input width is not a multiple of 64.
        overflowing: tensors left in float32, because float16 cannot hold their values.
    """

    bytes_before: dict[str, int]
    bytes_after: dict[str, int]
    kept: tuple[str, ...]
    overflowing: tuple[str, ...]


def is_four_bit(folder: str | Path) -> bool:
    """Whether `folder` holds a 4-bit backbone, by its config.json."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool((config.get("quantization_config") or {}).get("load_in_4bit"))


def save_four_bit(model: PreTrainedModel, folder: str | Path) -> QuantizationReport:
    """Write a backbone with the linear maps of its layers in NF4: config.json and model.safetensors.

    Maps that are 4 bit already (the backbone was trained so) are written as they are; all others are quantized where
    the model lives. The model itself does not change.

    Args:
        model: a plain backbone, without adapters.
        folder: where to write; made when it is missing.

    Raises:
        BackboneError: the model carries adapters, or keeps its layers in no module list.
    """
    from bitsandbytes.functional import quantize_4bit

    state = _without_repeats(model.state_dict())  # transformers ties a weight again after reading it
    if any(".base_layer." in name for name in state):
        raise BackboneError("Only a plain backbone can be quantized; this one carries adapters. Take them off first.")
    inside, outside = _linear_maps(model)
    kept = [name for name, module in inside.items() if _shape(module)[1] % BLOCK]
    part_of = _parts(model, inside)

    written: dict[str, Tensor] = {}
    overflowing: list[str] = []
    before, after = dict.fromkeys(_PARTS, 0), dict.fromkeys(_PARTS, 0)
    for name, tensor in state.items():
        module_name, is_weight, companion = name.partition(".weight")  # a 4-bit weight has companions: .absmax
        part = part_of.get(module_name, "other") if is_weight else "other"
        four_bit = bool(is_weight) and module_name in inside and module_name not in kept
        if not four_bit:
            tensors = {name: halve(tensor)}
            overflowing += [name] if tensors[name].dtype == torch.float32 else []
        elif companion or tensor.dtype == torch.uint8:
            tensors = {name: tensor}
        else:
            weight = tensor.T if isinstance(inside[module_name], Conv1D) else tensor
            packed, quantized = quantize_4bit(
                weight.float().contiguous(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
            )
            tensors = {name: packed}
            tensors |= {f"{name}.{key}": value for key, value in quantized.as_dict(packed=True).items()}
        if not companion:
            before[part] += 4 * (math.prod(_shape(inside[module_name])) if four_bit else tensor.numel())
        after[part] += sum(tensor.nbytes for tensor in tensors.values())
        written |= tensors

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _four_bit_config(model, [*outside, *kept]).save_pretrained(folder)
    save_file({n: t.cpu().contiguous() for n, t in written.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    return QuantizationReport(before, after, tuple(kept), tuple(overflowing))


def load_four_bit(folder: str | Path, device: str | torch.device = "cpu") -> PreTrainedModel:
    """Read a 4-bit backbone.

    On a CUDA device the linear maps stay in 4 bit (bitsandbytes' Linear4bit) and compute in bfloat16, or in float16
    where the GPU lacks it. Elsewhere they are decoded once into plain float32 modules that hold exactly the 4-bit
    values: bitsandbytes' own CPU modules repack their weights at the first forward pass without gradients and give none
    from then on. Everything else is float32 on both.

    Returns:
        the model in evaluation mode, on `device`.

    Raises:
        RunError: a file is missing, truncated, or does not fit the config.
        BackboneError: the folder's weights are not NF4.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not is_four_bit(folder) or not files:
        raise RunError(f"A 4-bit backbone has config.json and {WEIGHTS}; {folder} does not. Quantize the run again.")
    try:
        if torch.device(device).type == "cuda":
            model, info = _read_in_four_bit(folder, torch.device(device))
        else:
            model, info = _read_decoded(folder, files)
    except BackboneError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"The 4-bit backbone in {folder} cannot be read ({reason}). Quantize the run again.") from error
    if info["missing_keys"]:
        raise RunError(f"{folder} lacks the tensor {min(info['missing_keys'])}. Quantize the run again.")
    return model.to(device).eval()


def decode_four_bit(packed: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """The values that an NF4 weight stands for.

    Equal bit for bit to `bitsandbytes.functional.dequantize_4bit` where that returns float32.

    Args:
        packed: [values / 2, 1] uint8.
        state: quant_map [16], absmax [blocks], quant_state.bitsandbytes__nf4 (JSON as uint8), and with double
            quantization nested_quant_map [256] and nested_absmax [ceil(blocks / nested block size)].

    Returns:
        [out, in] float32, on the device of `packed`.
    """
    settings = json.loads(bytes(state[_STATE[1:]].tolist()))
    scale = state["absmax"]  # [blocks]
    if "nested_absmax" in state:
        outer = state["nested_absmax"].repeat_interleave(settings["nested_blocksize"])[: len(scale)]
        scale = state["nested_quant_map"][scale.int()] * outer + settings["nested_offset"]
    codes = torch.stack((packed >> 4, packed & 15), dim=-1).flatten()  # [values]
    blocks = state["quant_map"][codes.int()].view(-1, settings["blocksize"])  # [blocks, block size]
    return (blocks * scale[:, None]).view(settings["shape"])


def bytes_by_prefix(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Bytes of a state dict's tensors by the first part of their names; shared storage counts once."""
    sizes: dict[str, int] = {}
    for name, tensor in _without_repeats(state).items():
        prefix = name.partition(".")[0]
        sizes[prefix] = sizes.get(prefix, 0) + tensor.nbytes
    return sizes


def compare_rankings(scores_a: Tensor | np.ndarray, scores_b: Tensor | np.ndarray, k: int = 10) -> dict[str, float]:
    """How far two models rank alike, averaged over histories.

    Args:
        scores_a: [B, N] scores of N items for B histories; -inf marks an item that is not ranked.
        scores_b: [B, N] the other model's.
        k: length of the lists whose overlap is counted, 1 to N.

    Returns:
        `overlap@k`, the share of one top-k list that is in the other, 0 to 1; and `kendall_tau` (tau-b, over the items
        that both rank), -1 to 1, NaN where no row has two different scores.

    Raises:
        ConfigError: the shapes differ or k is out of range.
    """
    from scipy.stats import kendalltau  # half a second that who reads a quantized run need not wait

    a, b = (torch.as_tensor(scores).detach().float().cpu().numpy() for scores in (scores_a, scores_b))
    if a.shape != b.shape or a.ndim != 2:
        raise ConfigError(f"Both rankings must be [histories, items] of one shape; got {a.shape} and {b.shape}.")
    if not 1 <= k <= a.shape[1]:
        raise ConfigError(f"k must be from 1 to the number of items, {a.shape[1]}; got {k}.")
    tops = [np.argsort(-scores, axis=1, kind="stable")[:, :k] for scores in (a, b)]
    overlaps = [len(set(first) & set(second)) / k for first, second in zip(*tops, strict=True)]
    ranked = np.isfinite(a) & np.isfinite(b)
    taus = [kendalltau(x[rows], y[rows]).statistic for x, y, rows in zip(a, b, ranked, strict=True)]
    taus = [tau for tau in taus if not math.isnan(tau)]
    return {f"overlap@{k}": float(np.mean(overlaps)), "kendall_tau": float(np.mean(taus)) if taus else math.nan}


_PARTS = ("linear_maps", "embeddings", "other")


def _linear_maps(model: PreTrainedModel) -> tuple[dict[str, nn.Linear | Conv1D], list[str]]:
    """The linear maps inside the transformer layers by name, and the names of those outside."""
    from bitsandbytes.nn import Linear4bit

    num_layers = model.config.num_hidden_layers
    lists = (name for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    prefix = next((name for name in lists if len(model.get_submodule(name)) == num_layers), None)
    if prefix is None:
        raise BackboneError(f"A backbone must keep its {num_layers} layers in one module list; {type(model)} has none.")
    # By exact type: transformers replaces no subclass of nn.Linear when it reads the folder.
    maps = {name: m for name, m in model.named_modules() if type(m) in (nn.Linear, Conv1D, Linear4bit)}
    inside = {name: module for name, module in maps.items() if name.startswith(f"{prefix}.")}
    return inside, [name for name in maps if name not in inside]


def _shape(module: nn.Linear | Conv1D) -> tuple[int, int]:
    """Output and input width of a linear map, whatever way its weight is stored."""
    if isinstance(module, Conv1D):
        return module.weight.shape[1], module.weight.shape[0]
    return module.out_features, module.in_features


def _without_repeats(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state dict, those that share storage under their first name only."""
    kept: dict[str, Tensor] = {}
    seen: set[tuple[int, torch.Size]] = set()
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape)
        if tensor.numel() == 0 or place not in seen:
            kept[name] = tensor
        seen.add(place)
    return kept


def _parts(model: PreTrainedModel, inside: Iterable[str]) -> dict[str, str]:
    """Module name -> the part of the report its weight counts to."""
    head = model.get_output_embeddings()
    embeddings = [name for name, m in model.named_modules() if isinstance(m, nn.Embedding) or m is head]
    return dict.fromkeys(embeddings, "embeddings") | dict.fromkeys(inside, "linear_maps")


def halve(tensor: Tensor) -> Tensor:
    """In float16 where its range holds the values; unchanged otherwise."""
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if torch.isfinite(half).all() or not torch.isfinite(tensor).all() else tensor.float()


def _four_bit_config(model: PreTrainedModel, unquantized: list[str]) -> AutoConfig:
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = torch.float16
    config.quantization_config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=unquantized,  # despite its name, transformers heeds it for 4 bit too
    ).to_dict()
    return config


def _read_in_four_bit(folder: Path, device: torch.device) -> tuple[PreTrainedModel, dict[str, set[str]]]:
    from bitsandbytes.nn import Linear4bit

    model, info = AutoModelForCausalLM.from_pretrained(
        folder, device_map={"": device}, dtype=torch.float32, output_loading_info=True
    )
    # Asked without emulation: GPUs before Ampere emulate bfloat16, many times slower than they compute in float16.
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    compute_dtype = torch.bfloat16 if has_bf16 else torch.float16
    for parameter in model.parameters():
        if parameter.is_floating_point():  # transformers leaves a 4-bit folder's `*.weight` in their stored type
            parameter.data = parameter.data.float()
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype = compute_dtype
            module.compute_type_is_set = True
            module.weight.quant_state.dtype = compute_dtype  # the backward pass decodes straight into this type
    return model, info


def _read_decoded(folder: Path, files: list[Path]) -> tuple[PreTrainedModel, dict[str, set[str]]]:
    stored = {name: tensor for file in files for name, tensor in load_file(file).items()}
    names = [name.removesuffix(_STATE) for name in stored if name.endswith(_STATE)]
    if not names:
        raise BackboneError(f"The 4-bit weights of a backbone must be NF4; {folder} holds none. Quantize it again.")
    for name in names:
        state = {key[len(name) + 1 :]: stored.pop(key) for key in list(stored) if key.startswith(f"{name}.")}
        stored[name] = decode_four_bit(stored[name], state)
    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)  # no memory: tells the class, and which maps are transposed
    for name in names:
        if isinstance(skeleton.get_submodule(name.removesuffix(".weight")), Conv1D):
            stored[name] = stored[name].T.contiguous()
    return type(skeleton).from_pretrained(
        None, config=config, state_dict=stored, dtype=torch.float32, output_loading_info=True
    )
