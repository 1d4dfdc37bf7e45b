"""CF models that several trainings begin from.

A CF model learns before all else, from data, seed and its own settings alone; so trainings that agree in these, such as
all those of a search, need it once. The folder that they share has one file for each: trained weights, and in its
metadata the log of their training, which every training that begins from them takes into its own.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from darec.runs import writing_file

SHARED = "collaborative"  # how the folder is called
_LOG = "log"  # of the metadata


@dataclass(frozen=True)
class Learned:
    """A CF model as its own training left it.

    Attributes:
        state: its weights.
        events: the log of its training, a line an epoch.
        ndcg: its best validation NDCG@10, in 0..1.
    """

    state: dict[str, Tensor]
    events: list[dict[str, Any]]
    ndcg: float


def load_learned(folder: Path, identity: dict[str, Any]) -> Learned | None:
    """What another training has left in the folder; None where none has.

    Args:
        folder: may be missing.
        identity: all that the weights depend on, plain.
    """
    path = _path_of(folder, identity)
    if not path.is_file():
        return None
    with safe_open(path, "pt") as tensors:
        told = json.loads(tensors.metadata()[_LOG])
        return Learned({name: tensors.get_tensor(name) for name in tensors.offset_keys()}, told["events"], told["ndcg"])


def save_learned(folder: Path, identity: dict[str, Any], learned: Learned) -> None:
    """Leave a CF model in the folder, which is made when it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in learned.state.items()}
    with writing_file(_path_of(folder, identity)) as temporary:
        save_file(state, temporary, {_LOG: json.dumps({"events": learned.events, "ndcg": learned.ndcg})})


def _path_of(folder: Path, identity: dict[str, Any]) -> Path:
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{name}.safetensors"
