"""CF models that several trainings begin from.

A CF model learns before all else, from its first weights, data, seed and its own settings alone; so trainings that
agree in these, such as all those of a search, need it once. The folder that they share has one file for each: trained
weights, and in its metadata the log of their training, which every training that begins from them takes into its own,
the seconds included.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

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


def shared_path(folder: Path, identity: dict[str, Any], first: dict[str, Tensor]) -> Path:
    """Where a CF model lies, or is to lie.

    Args:
        folder: may be missing.
        identity: all that its training depends on beside the first weights, plain.
        first: those weights.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for name, tensor in first.items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return folder / f"{digest.hexdigest()[:16]}.safetensors"


def load_learned(path: Path) -> Learned:
    """What another training has left there."""
    with safe_open(path, "pt") as tensors:
        told = json.loads(tensors.metadata()[_LOG])
        return Learned({name: tensors.get_tensor(name) for name in tensors.offset_keys()}, told["events"], told["ndcg"])


def save_learned(path: Path, learned: Learned) -> None:
    """Leave a CF model there, in a folder that is made when it is missing; of two trainings at once one will do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in learned.state.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(state, temporary, {_LOG: json.dumps({"events": learned.events, "ndcg": learned.ndcg})})
    os.replace(temporary, path)
