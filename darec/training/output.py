"""What a training leaves behind: the backbone it starts from, and in the end the files that make a folder a run."""

import shutil
from pathlib import Path
from typing import Any

from darec.config import Settings
from darec.data.interactions import Dataset
from darec.errors import ConfigError, RunError
from darec.model.backbone import load_backbone, save_backbone, tiny_backbone
from darec.model.quantization import is_four_bit, save_four_bit
from darec.model.recommender import BACKBONE, DarecModel
from darec.model.trained import save_trained
from darec.runs import (
    DAREC,
    MANIFEST,
    RUN,
    model_name,
    provenance,
    recover_folder,
    write_json,
    write_manifest,
    writing_folder,
)
from darec.training.checkpoint import FOLDER as CHECKPOINT
from darec.training.checkpoint import Progress

LOG = "metrics.jsonl"
DATA = "data"


def check_output(out: Path, resume: bool) -> None:
    """Refuse a folder that holds something to lose, or nothing to go on with.

    Raises:
        RunError: naming the folder and the remedy.
    """
    if (out / MANIFEST).is_file():
        raise RunError(f"{out} holds a finished run. Choose another folder, or delete it first.")
    begun = (out / LOG).is_file()
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        remedy = "Choose another, or add --resume to go on." if begun else "Choose another."
        raise RunError(f"The output folder must be new or empty: {out}. {remedy}")
    if resume and not begun:
        raise RunError(f"There is nothing to go on with at {out}. Leave --resume out and begin in a new folder.")


def write_backbone(
    folder: Path, name: str | None, dataset: Dataset, settings: Settings, seed: int, device: str
) -> None:
    """Put the backbone that training starts from into the run, so that the run is whole wherever it goes.

    Raises:
        ConfigError, BackboneError: there is none, it cannot be read, or 4 bits are asked for without a CUDA GPU.
    """
    chosen = settings.backbone
    if chosen.four_bit and not device.startswith("cuda"):
        raise ConfigError(
            f"Training over 4-bit weights needs a CUDA GPU; the device is {device}. "
            "Set backbone.four_bit=false and quantize afterwards."
        )
    if name is None and chosen.tiny:
        model, tokenizer = tiny_backbone(dataset.catalog.full_texts, seed=seed)
    elif name is None:
        raise ConfigError("Training needs a backbone: give --backbone a hub name or a folder, or use --preset smoke.")
    elif is_four_bit(name) and not chosen.random_init:
        shutil.copytree(name, folder)
        return
    else:
        model, tokenizer = load_backbone(name, random_init=chosen.random_init, seed=seed)
    with writing_folder(folder) as temporary:
        save_backbone(model, tokenizer, temporary)
        if chosen.four_bit:
            save_four_bit(model.to(device), temporary)


def finish_run(
    out: Path,
    dataset: Dataset,
    model: DarecModel,
    progress: Progress,
    identity: dict[str, Any],
    validation: dict[str, Any],
    device: str,
    kind: str = "darec",
) -> None:
    """Write what makes the folder a run, the manifest last."""
    save_trained(model.trained_state(), out)
    (out / DATA).mkdir(exist_ok=True)
    dataset.save(out / DATA)
    write_json(
        out / RUN,
        {
            "kind": kind,
            "name": DAREC,
            "backbone": model_name(identity["backbone"]),
            "settings": identity["settings"],
            "seed": identity["seed"],
            "data_fingerprint": identity["data"],
            "provenance": provenance(device),
            "seconds": round(progress.seconds, 1),
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "validation": validation,
        },
    )
    close_run(out)


def close_run(out: Path) -> None:
    """Write the manifest of a trained folder; only then has its checkpoint served."""
    for part in (CHECKPOINT, BACKBONE):
        recover_folder(out / part)  # what a kill left beside them is no part of the run
    write_manifest(out, without=CHECKPOINT)
    shutil.rmtree(out / CHECKPOINT, ignore_errors=True)
