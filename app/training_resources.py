"""What all sessions share about training: the jobs, the data and backbones on offer, weights and tables of results."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import resources
from darec.background import Jobs
from darec.data.interactions import INTERACTIONS, ITEMS, Dataset, fingerprint
from darec.data.splits import Split
from darec.errors import DataError, RunError
from darec.evaluation.error_analysis import find_ranks
from darec.evaluation.metrics import spell_difference
from darec.model.levels import QuantizedMap, quantized_maps, read_map
from darec.runs import DAREC, part_of, read_run


def open_jobs() -> Jobs:
    """The jobs of ./runs: one at a time, whichever session begins it."""
    return _open_jobs(str(resources.RUNS.resolve()))


@st.cache_resource(max_entries=1, show_spinner=False)
def _open_jobs(folder: str) -> Jobs:
    return Jobs(Path(folder))


def list_data() -> dict[str, Path]:
    """Prepared data by the name shown: the folders in ./data, then the data of runs where it is another."""
    folders = {folder.name: folder for folder in sorted(resources.DATA.glob("*"))}
    folders |= {f"data of {name}": part_of(run, "data") for name, run in resources.list_runs().items()}
    found: dict[str, tuple[str, Path]] = {}
    for name, folder in folders.items():
        if (folder / INTERACTIONS).is_file() and (folder / ITEMS).is_file():
            found.setdefault(_fingerprint(str(folder.resolve()), resources.written_at(folder)), (name, folder))
    return dict(found.values())


@st.cache_data(max_entries=256, show_spinner=False)
def _fingerprint(folder: str, written_at: int) -> str:
    return fingerprint(folder)


def load_split(folder: Path) -> tuple[Dataset, Split]:
    """A data set to train on, and its parts.

    Raises:
        DataError: as `resources.load_data`, or there is nothing to train on.
    """
    dataset, parts = resources.load_data(folder)
    if not any(len(history) > 1 for history in parts.train):
        raise DataError(f"Training needs users with at least two training items; {folder} has none. Bring other data.")
    return dataset, parts


def list_backbones() -> list[str]:
    """Folders of language models that are at hand."""
    shipped = resources.DEMO / "backbone"
    return [str(shipped)] if (shipped / "config.json").is_file() else []


def read_info(run: Path) -> dict[str, Any]:
    """`run.json` of a finished run, its files unchecked."""
    return read_run(run, verify=False)


def list_maps(backbone: Path) -> list[str]:
    """The maps that a 4-bit backbone holds in four bits."""
    return _list_maps(backbone, _written_at(backbone))


@st.cache_resource(max_entries=4, show_spinner=False)
def _list_maps(backbone: Path, written_at: int) -> list[str]:
    return quantized_maps(backbone)


def load_map(backbone: Path, name: str, original: Path | None) -> QuantizedMap:
    """One of them, beside the weights it was made from."""
    return _load_map(backbone, name, original, [_written_at(folder) for folder in (backbone, original) if folder])


@st.cache_resource(max_entries=4, show_spinner=False)
def _load_map(backbone: Path, name: str, original: Path | None, written_at: list[int]) -> QuantizedMap:
    return read_map(backbone, name, original)


def _written_at(backbone: Path) -> int:
    """In nanoseconds; another run may have come by the name of one that was deleted."""
    return max((path.stat().st_mtime_ns for path in backbone.glob("*")), default=0)


def ranked_table() -> pd.DataFrame:
    """Every run of one's own that has ranked its test users: what it is, its metrics with intervals, the best first."""
    rows = []
    for name, run in resources.list_runs().items():
        if run.parent == resources.DEMO:
            continue  # in the table of the shipped models
        try:
            info = read_info(run)
            path = find_ranks(run)
        except RunError:
            continue  # what is wrong with it is said wherever it is opened
        if path is not None:
            metrics = resources.measure_cases(pd.read_parquet(path, columns=["rank"]))
            lack = resources.spell_lack(info) if info["name"] == DAREC else ""  # variants say it themselves
            model = f"{DAREC} {lack}" if lack else info["name"]
            rows.append({"Run": name, "Model": model, "Data": info["data_fingerprint"], **_shown(metrics)})
    table = pd.DataFrame(rows)
    return table if table.empty else table.sort_values(["Data", "NDCG@10"], ascending=[True, False], ignore_index=True)


def shipped_table() -> pd.DataFrame | None:
    """Models of the shipped card, in its order, with metrics and what DARec has beyond each; None without a card."""
    try:
        card = json.loads((resources.DEMO / "card.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    rows = []
    for name, figures in card["models"].items():
        beyond = spell_difference(card["darec minus"][name]["all"]) if name in card["darec minus"] else ""
        rows.append({"Model": figures["name"], **_shown(figures["seen_removed"]), "DARec minus it": beyond})
    return pd.DataFrame(rows)


def _shown(metrics: dict[str, Any]) -> dict[str, float]:
    ndcg, hits = metrics["ndcg@10"], metrics["hr@10"]
    return {"NDCG@10": ndcg["mean"], "from": ndcg["low"], "to": ndcg["high"], "HR@10": hits["mean"]}
