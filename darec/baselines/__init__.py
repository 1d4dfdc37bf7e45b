"""Baselines, each tuned on validation only: train one by name, save it, load it, or write it as a run."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from darec.baselines.gru4rec import GRU4RecScorer, train_gru4rec
from darec.baselines.itemknn import ItemKNN, train_itemknn
from darec.baselines.popularity import Popularity, train_popularity
from darec.baselines.sasrec import NextItemScorer, train_sasrec
from darec.baselines.sasrec_text import train_sasrec_text
from darec.baselines.text_neighbours import TextNeighbours, train_text_neighbours
from darec.config import CollaborativeSettings
from darec.data.interactions import Dataset, fingerprint
from darec.data.splits import Split, split
from darec.errors import ConfigError, RunError
from darec.evaluation.metrics import hit_rate, ndcg
from darec.evaluation.protocol import Scorer, rank_cases
from darec.model.text_features import load_encoder
from darec.runs import RUN, model_name, part_of, provenance, write_json, write_manifest, writing_folder

NAMES = {  # by which they are asked for -> by which they are shown
    "popularity": "Popularity",
    "itemknn": "ItemKNN",
    "gru4rec": "GRU4Rec",
    "sasrec": "SASRec",
    "sasrec_text": "SASRec with text",
    "text_neighbours": "Text neighbours",
}
READ_TEXT = ("sasrec_text", "text_neighbours")  # these need a backbone
TRAINED_BY_GRADIENT = ("gru4rec", "sasrec", "sasrec_text")

BaselineScorer = Popularity | ItemKNN | NextItemScorer | TextNeighbours
ENCODER = "encoder"  # folder of a run that reads titles; the features of sasrec_text are among its weights
_STATE, _TENSORS = "baseline.json", "baseline.safetensors"


def train_baseline(
    name: str,
    dataset: Dataset,
    *,
    seed: int = 0,
    settings: CollaborativeSettings | None = None,
    backbone: str | None = None,
    device: str = "cpu",
    on_epoch: Callable[[dict[str, Any]], None] = lambda event: None,
) -> BaselineScorer:
    """Train a baseline on the training part of `dataset` and select it on the validation part.

    Args:
        name: one of `NAMES`.
        dataset: the data.
        seed: of initial weights, windows and dropout, where there are any.
        settings: of the models trained by gradient; None means `default_settings`.
        backbone: Hugging Face name or folder, for those that read text.
        device: torch name.
        on_epoch: receives a dict after each epoch, or after each setting tried.

    Raises:
        ConfigError: the name is unknown, or the baseline reads text and no backbone is given.
        BackboneError: the backbone cannot be loaded.
        DataError: there is too little data to train or to select.
    """
    _check(name, backbone)
    settings = settings or default_settings(name)
    return _train(name, dataset, split(dataset), seed, settings, backbone or "", device, on_epoch)


def default_settings(name: str) -> CollaborativeSettings:
    """What a baseline trained by gradient uses unless told otherwise, chosen on the validation part of ML-100K."""
    match name:
        case "gru4rec":  # better with one layer than with two
            return CollaborativeSettings(num_layers=1)
        case "sasrec_text":  # learns by heart sooner than SASRec does
            return CollaborativeSettings(dropout=0.4, learning_rate=1e-3)
        case _:
            return CollaborativeSettings()


def save_baseline(name: str, scorer: BaselineScorer, folder: str | Path) -> None:
    """Write baseline.safetensors and baseline.json into an existing folder, and with what reads titles its encoder."""
    tensors, values = scorer.state()
    if isinstance(scorer, TextNeighbours):
        _save_encoder(scorer.backbone, Path(folder) / ENCODER)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, Path(folder) / _TENSORS)
    write_json(Path(folder) / _STATE, {"name": name, "values": values})


def load_baseline(folder: str | Path) -> BaselineScorer:
    """Read what `save_baseline` wrote; a neural scorer stands on the CPU.

    Raises:
        RunError: the folder holds no baseline, or one of another version.
    """
    try:
        content = json.loads((Path(folder) / _STATE).read_text(encoding="utf-8"))
        scorer_class, values = _scorer_class(content["name"]), content["values"]
        if scorer_class is TextNeighbours:  # runs of earlier versions name their encoder, and hold none
            values = {"backbone": str(part_of(Path(folder), ENCODER)), **values}
        return scorer_class.from_state(load_file(Path(folder) / _TENSORS), values)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise RunError(
            f"{folder} must hold a baseline as this version writes it ({type(error).__name__}: {error}). "
            "Make it again with `python -m darec baseline`."
        ) from error


def write_baseline_run(
    name: str,
    data_folder: str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    settings: CollaborativeSettings | None = None,
    backbone: str | None = None,
    device: str = "cpu",
    on_epoch: Callable[[dict[str, Any]], None] = lambda event: None,
) -> dict[str, Any]:
    """Train a baseline and write it with its data as a run folder, whole or not at all.

    Args:
        name: one of `NAMES`.
        data_folder: holds the normalised pair.
        out: the run folder to make.
        seed: see `train_baseline`.
        settings: see `train_baseline`.
        backbone: see `train_baseline`.
        device: see `train_baseline`.
        on_epoch: see `train_baseline`.

    Returns:
        The content of run.json: kind, name, settings, data_fingerprint, seed, provenance, validation, seconds.

    Raises:
        DarecError: as `train_baseline`, or `out` exists already.
    """
    _check(name, backbone)
    dataset = Dataset.load(data_folder)
    parts = split(dataset)
    settings = settings or default_settings(name)
    with writing_folder(out) as folder:
        start = time.perf_counter()
        scorer = _train(name, dataset, parts, seed, settings, backbone or "", device, on_epoch)
        seconds = time.perf_counter() - start
        values = scorer.state()[1]
        save_baseline(name, scorer, folder)
        (folder / "data").mkdir()
        dataset.save(folder / "data")
        run = {
            "kind": "baseline",
            "name": NAMES[name],
            "settings": values.get("settings", values),
            "backbone": model_name(backbone) if backbone and name in READ_TEXT else None,
            "data_fingerprint": fingerprint(data_folder),
            "seed": seed,
            "provenance": provenance(device),
            "validation": _validate(scorer, parts),
            "seconds": seconds,
        }
        write_json(folder / RUN, run)
        write_manifest(folder)
    return run


def _save_encoder(backbone: str, folder: Path) -> None:
    from darec.model.backbone import save_backbone  # over a second to import, and only needed here
    from darec.model.quantization import is_four_bit

    if is_four_bit(backbone):
        shutil.copytree(backbone, folder)
    else:
        tokenizer, model = load_encoder(backbone)
        save_backbone(model, tokenizer, folder)


def _check(name: str, backbone: str | None) -> None:
    if name not in NAMES:
        raise ConfigError(f"A baseline is one of {', '.join(NAMES)}; got {name!r}.")
    if name in READ_TEXT and not backbone:
        raise ConfigError(f"The baseline {name} reads text and needs a backbone; got none. Give --backbone.")


def _train(
    name: str,
    dataset: Dataset,
    parts: Split,
    seed: int,
    settings: CollaborativeSettings,
    backbone: str,
    device: str,
    on_epoch: Callable[[dict[str, Any]], None],
) -> BaselineScorer:
    match name:
        case "popularity":
            return train_popularity(parts)
        case "itemknn":
            return train_itemknn(parts, on_epoch)
        case "gru4rec":
            return train_gru4rec(parts, settings, seed=seed, device=device, on_epoch=on_epoch)
        case "sasrec":
            return train_sasrec(parts, settings, seed=seed, device=device, on_epoch=on_epoch)
        case "sasrec_text":
            return train_sasrec_text(
                parts, dataset.catalog, settings, backbone=backbone, seed=seed, device=device, on_epoch=on_epoch
            )
        case _:
            return train_text_neighbours(parts, dataset.catalog, backbone=backbone, device=device, on_epoch=on_epoch)


def _validate(scorer: Scorer, parts: Split) -> dict[str, float]:
    ranks = rank_cases(scorer, parts, "valid")["rank"].to_numpy()
    return {"hr@10": hit_rate(ranks, 10), "ndcg@10": ndcg(ranks, 10)}


def _scorer_class(name: str) -> type[BaselineScorer]:
    match name:
        case "popularity":
            return Popularity
        case "itemknn":
            return ItemKNN
        case "gru4rec":
            return GRU4RecScorer
        case "text_neighbours":
            return TextNeighbours
        case _:
            return NextItemScorer
