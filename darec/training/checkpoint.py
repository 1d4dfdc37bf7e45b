"""Where an interrupted training goes on: everything that its next step depends on, exactly."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darec.errors import RunError
from darec.runs import recover_folder, verify_manifest, write_manifest, writing_folder

FOLDER = "checkpoint"
_STATE = "state.pt"


@dataclass
class Progress:
    """How far training has come.

    Attributes:
        epoch: the epoch that runs now, from 0.
        batch: batches done in it.
        best: best validation NDCG@10 so far (mean of CF on and off), in 0..1; less 1 where the one with CF on is below
            `reference`; -2 before the first validation.
        best_epoch: epochs trained when it was reached.
        validations_since_best: for early stopping.
        collaborative: validation NDCG@10 of the CF model alone, after its own training; NaN without one.
        reference: the same on the cases that validations of the joint training use; 0 without one.
        seconds: training time so far, over all sittings, a shared CF model's included.
        log_bytes: length of the training log.
    """

    epoch: int = 0
    batch: int = 0
    best: float = -2.0
    best_epoch: int = 0
    validations_since_best: int = 0
    collaborative: float = float("nan")
    reference: float = 0.0
    seconds: float = 0.0
    log_bytes: int = 0


def save_checkpoint(
    run: Path, progress: Progress, identity: dict[str, Any], parts: dict[str, Any], best: dict[str, Tensor]
) -> None:
    """Replace the run's checkpoint.

    Args:
        run: the unfinished run.
        progress: how far it is.
        identity: what the training must agree on to go on: settings, seed, data.
        parts: name -> state of model, optimizer, scheduler and the like.
        best: trained weights of the best validation so far.
    """
    with writing_folder(run / FOLDER, replace=True) as folder:
        content = {"progress": asdict(progress), "identity": identity, "parts": parts, "best": best}
        torch.save(content, folder / _STATE)
        write_manifest(folder)


def load_checkpoint(run: Path, identity: dict[str, Any]) -> tuple[Progress, dict[str, Any], dict[str, Tensor]] | None:
    """The run's checkpoint, or None where it has none yet; what a kill left of others is cleared up.

    Raises:
        RunError: its bytes were altered, or it belongs to another training: other settings, seed or data.
    """
    folder = run / FOLDER
    recover_folder(folder)
    if not folder.is_dir():
        return None
    verify_manifest(folder)
    content = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
    for name, value in identity.items():
        if content["identity"].get(name) != value:
            raise RunError(
                f"{run} was begun with another {name} and can only go on with the same. "
                "Give what it was begun with, or train into a new folder."
            )
    return Progress(**content["progress"]), content["parts"], content["best"]
