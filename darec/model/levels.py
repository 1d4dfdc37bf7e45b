"""The weights of a 4-bit backbone beside those it was made from, and the levels that four bits can hold."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from darec.errors import RunError
from darec.model.quantization import decode_four_bit, is_four_bit

_STATE = ".quant_state.bitsandbytes__nf4"


@dataclass(frozen=True, eq=False)
class QuantizedMap:
    """One linear map.

    Attributes:
        name: of its weight in the backbone's file.
        levels: [16] float32 in -1..1, rising: the codebook.
        after: [out, in] float32, the weights that the 4-bit file stands for.
        before: [out, in] float32, what was quantized; None where it is not at hand.
    """

    name: str
    levels: np.ndarray
    after: np.ndarray
    before: np.ndarray | None

    @property
    def relative_error(self) -> float:
        """Norm of the change over the norm of the weights; NaN where they are not at hand or zero."""
        if self.before is None or not (norm := float(np.linalg.norm(self.before))):
            return float("nan")
        return float(np.linalg.norm(self.after - self.before)) / norm


def quantized_maps(backbone: Path) -> list[str]:
    """Names of the weights that a 4-bit backbone holds in four bits, by name, layer 2 before layer 10.

    Raises:
        RunError: `backbone` is no 4-bit backbone.
    """
    return sorted(_files_by_map(backbone), key=lambda name: re.sub(r"\d+", lambda digits: digits[0].zfill(6), name))


def read_map(backbone: Path, name: str, original: Path | None = None) -> QuantizedMap:
    """Read one of `quantized_maps`.

    Args:
        backbone: a folder with a 4-bit backbone.
        name: of the weight.
        original: the folder with the backbone it was made from.

    Raises:
        RunError: `backbone` holds no such map in four bits.
    """
    files = _files_by_map(backbone)
    if name not in files:
        raise RunError(f"{backbone} holds no map {name} in four bits. Name one of {', '.join(files)}.")
    stored = _read(files[name], name)
    state = {key.removeprefix(f"{name}."): tensor for key, tensor in stored.items() if key != name}
    after = decode_four_bit(stored[name], state)
    return QuantizedMap(name, state["quant_map"].numpy(), after.numpy(), _original(original, name, after))


def _original(folder: Path | None, name: str, after: Tensor) -> np.ndarray | None:
    for file in sorted(folder.glob("*.safetensors")) if folder else ():
        weight = _read(file, name).get(name)
        if weight is None or not weight.is_floating_point():
            continue
        # GPT-2 stores its maps turned, and a square one does not tell by its shape: the nearer one is it.
        turns = [turn.float() for turn in (weight, weight.T) if turn.shape == after.shape]
        if turns:
            return min(turns, key=lambda turn: float(torch.dist(turn, after))).contiguous().numpy()
    return None


def _files_by_map(backbone: Path) -> dict[str, Path]:
    if not is_four_bit(backbone):
        raise RunError(f"{backbone} holds no 4-bit backbone. Name one that quantize wrote.")
    found: dict[str, Path] = {}
    for file in sorted(backbone.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            found |= {key.removesuffix(_STATE): file for key in tensors.keys() if key.endswith(_STATE)}  # noqa: SIM118
    return found


def _read(file: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a file that are called `prefix`, or that and a dot and more."""
    with safe_open(file, "pt") as tensors:
        names = [key for key in tensors.keys() if key == prefix or key.startswith(f"{prefix}.")]  # noqa: SIM118
        return {key: tensors.get_tensor(key) for key in names}
