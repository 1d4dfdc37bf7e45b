"""What training leaves in a run: weights of its own, and item encodings, which runs over one catalogue hold alike."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from darec.errors import RunError
from darec.runs import part_of

WEIGHTS = "model.safetensors"
ENCODINGS = "encodings"  # folder of a run
_ENCODINGS = ("item_encodings", "encoding_mean", "encoding_map")


def save_trained(state: dict[str, Tensor], run: Path) -> None:
    """Write a model's trained state into the folder of a run."""
    state = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
    (run / ENCODINGS).mkdir(exist_ok=True)
    save_file({name: state.pop(name) for name in _ENCODINGS}, run / ENCODINGS / WEIGHTS)
    save_file(state, run / WEIGHTS)


def load_trained(run: Path, device: str) -> dict[str, Tensor]:
    """The trained state that `save_trained` wrote, wherever the run's encodings lie.

    Raises:
        RunError: there are none.
    """
    encodings = part_of(run, ENCODINGS) / WEIGHTS
    if not encodings.is_file():
        raise RunError(f"A run has its item encodings in {ENCODINGS}; {run} has none. Make it with this version.")
    return load_file(run / WEIGHTS, device=device) | load_file(encodings, device=device)
