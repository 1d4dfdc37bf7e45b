"""What all sessions share: the runs that can be picked and the models loaded from them."""

import argparse
import gc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from darec.annotations import Notes, notes_path
from darec.config import missing_parts
from darec.data.demo.films import ASSETS
from darec.data.demo.truth import Truth
from darec.data.interactions import INTERACTIONS, ITEMS, Dataset
from darec.data.splits import Split, split
from darec.errors import RunError
from darec.evaluation.error_analysis import (
    category_metrics,
    compare_runs,
    find_ranks,
    item_categories,
    items_in,
    list_cases,
    read_ranks,
    summarize_cases,
)
from darec.evaluation.slices import slice_metrics
from darec.runs import MANIFEST, part_of, read_run
from darec.serving import Recommender, find_runs

if TYPE_CHECKING:
    from darec.search.results import SearchResult

RUNS, DATA = Path("runs"), Path("data")
TRUTH = ASSETS / "truth"
DEMO = Path(__file__).parents[1] / "assets" / "models" / "demo"
DEMO_RUNS = (  # in the order in which they are offered
    *("darec", "without-context-masking", "without-cf", "without-dynamic-adaption", "without-adapters"),
    *("sasrec", "popularity"),
)
LOADED = len(DEMO_RUNS) + 1  # models kept: all that ship, which can stand side by side, and one of one's own


def list_runs() -> dict[str, Path]:
    """Run folders by the name shown: given by `--run`, then the shipped demo, then those found in ./runs."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run", action="append", type=Path, default=[])
    given: list[Path] = parser.parse_known_args(sys.argv[1:])[0].run
    demo = [DEMO / name for name in DEMO_RUNS if (DEMO / name / MANIFEST).is_file()]
    folders = {folder.resolve(): folder for folder in [*given, *demo, *find_runs(RUNS)]}
    runs: dict[str, Path] = {}
    for resolved, folder in folders.items():
        name = resolved.name
        if folder in demo:  # nobody should take a variant for the same model with a part switched off
            name = f"Demo: {read_run(folder, verify=False)['name']}"
        runs[str(folder) if name in runs else name] = folder
    return runs


def label_run(name: str, run: Path) -> str:
    """What a run is called where it is compared or trained: its name, and what it was retrained without.

    Args:
        name: by which it is listed; that of a shipped variant says it already.
        run: its folder.
    """
    try:
        lack = spell_lack(read_run(run, verify=False))
    except RunError:
        return name  # what is wrong with it is said wherever it is opened
    return f"{name}, {lack}" if lack and not name.endswith(lack) else name


def spell_lack(info: Mapping[str, Any]) -> str:
    """The parts of the method that a DARec was *retrained without*, by its `run.json`; empty where there are none."""
    missing = missing_parts(info["settings"]) if info["kind"] == "darec" else []
    return f"retrained without {' and '.join(missing)}" if missing else ""


def serves_this_machine_only() -> bool:
    """Whether nobody else can open the app; visitors from a network must not name files or models here."""
    return st.get_option("server.address") in ("127.0.0.1", "localhost", "::1")


def load_recommender(run: Path) -> Recommender:
    """The model of a run, loaded once for all sessions, and again when the run was written anew.

    Raises:
        DarecError: the folder is no run, or is incomplete or altered.
    """
    manifest = run / MANIFEST
    return _load(str(run), manifest.stat().st_mtime_ns if manifest.is_file() else 0)


@st.cache_resource(max_entries=LOADED, show_spinner="Loading the model …")
def _load(run: str, written_at: int) -> Recommender:
    gc.disable()  # a fifth of the seconds that torch and peft take to import went into looking for garbage among them
    try:
        recommender = Recommender.load(run)
    finally:
        gc.enable()
    recommender.catalog.search("a", 1)  # makes the index now, not when somebody has typed the first letters
    return recommender


def is_simulated(info: Mapping[str, Any]) -> bool:
    """Whether the users of a model, by its `run.json`, are the viewers of the demo's world, whom nobody has met."""
    demo = DEMO / DEMO_RUNS[0]
    if not (demo / MANIFEST).is_file():
        return False
    return bool(read_run(demo, verify=False)["data_fingerprint"] == info["data_fingerprint"])


def load_truth(run: Path) -> Truth:
    """What the viewers of the demo's world truly like, for a run on that world; read once for all sessions."""
    return _load_truth(str(part_of(run, "data")))


@st.cache_resource(max_entries=1, show_spinner="Reading what viewers like …")
def _load_truth(pair: str) -> Truth:
    return Truth.load(TRUTH, pair)


def load_data(folder: Path) -> tuple[Dataset, Split]:
    """A prepared data set and its parts, read once for all sessions, and again when it was written anew.

    Raises:
        DataError: the folder lacks a file, or breaks a rule of the normalised form.
    """
    return _load_data(str(folder), written_at(folder))


def written_at(folder: Path) -> int:
    """When a prepared data set was last written, in nanoseconds; 0 where there is none."""
    paths = (folder / INTERACTIONS, folder / ITEMS)
    return max((path.stat().st_mtime_ns for path in paths if path.is_file()), default=0)


@st.cache_resource(max_entries=2, show_spinner="Reading the data …")
def _load_data(folder: str, written_at: int) -> tuple[Dataset, Split]:
    dataset = Dataset.load(folder)
    return dataset, split(dataset)


def load_search(run: Path) -> "SearchResult":
    """What the search that made a run has found; read again when the run was written anew."""
    from darec.search.results import SEARCH  # late: it brings peft, which takes seconds

    return _load_search(str(run), (run / SEARCH).stat().st_mtime_ns)


@st.cache_resource(max_entries=4, show_spinner=False)
def _load_search(run: str, written_at: int) -> "SearchResult":
    from darec.search import results

    return results.load_search(Path(run))


def load_cases(run: Path, recommender: Recommender) -> pd.DataFrame | None:
    """The test cases of a run from its rank file, or None where there is none yet.

    Args:
        run: its folder.
        recommender: a run on the same data, whose catalogue and test users are the cases'.

    Raises:
        DataError: the rank file answers other questions.
    """
    path = find_ranks(run)
    if path is None:
        return None
    return _load_cases(str(path), path.stat().st_mtime_ns, recommender.info["data_fingerprint"], recommender)


def comparable_runs(run: Path, recommender: Recommender) -> dict[str, Path]:
    """The other runs on the same data, by the name shown: those of the picker, and those in folders beside this one."""
    others: dict[str, Path] = {}
    listed = list_runs()
    beside = {folder.name: folder for folder in find_siblings(run)}
    places = {run.resolve()}
    for name, folder in [*listed.items(), *beside.items()]:
        if folder.resolve() in places:
            continue
        places.add(folder.resolve())
        try:
            same = read_run(folder, verify=False)["data_fingerprint"] == recommender.info["data_fingerprint"]
        except RunError:
            continue  # the model picker says what is wrong with it
        if same:
            others[str(folder) if name in others else name] = folder
    return others


def find_siblings(run: Path) -> list[Path]:
    """Finished runs in folders beside a run's, the run among them, by name."""
    return sorted(path.parent for path in run.resolve().parent.glob(f"*/{MANIFEST}"))


@st.cache_resource(max_entries=4, show_spinner=False)
def load_members(data_fingerprint: str, _recommender: Recommender) -> dict[str, np.ndarray]:
    """[N] bool for each category of a data set's items, called `genres: drama`; genres come first, then by name."""
    categories = item_categories(_recommender.catalog)
    return {
        f"{attribute}: {name}": items_in(own, [name])
        for attribute, own in sorted(categories.items(), key=lambda pair: (pair[0] != "genres", pair[0]))
        for name in sorted({name for of_item in own for name in of_item})
    }


@st.cache_resource(max_entries=4, show_spinner=False)
def _load_cases(path: str, written_at: int, data_fingerprint: str, _recommender: Recommender) -> pd.DataFrame:
    return list_cases(read_ranks(Path(path), _recommender.split.test), _recommender.catalog)


# Drawing a thousand bootstrap samples of 20,000 users takes a second: once for each selection of cases is enough.
measure_cases = st.cache_data(max_entries=32, show_spinner=False)(summarize_cases)
measure_slices = st.cache_data(max_entries=32, show_spinner=False)(slice_metrics)
measure_categories = st.cache_data(max_entries=32, show_spinner=False)(category_metrics)
pair_cases = st.cache_data(max_entries=8, show_spinner=False)(compare_runs)


def open_notes() -> Notes:
    """The notes file, at the place that `--notes` names, or else where `notes_path` says."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--notes", type=Path)
    return Notes(notes_path(parser.parse_known_args(sys.argv[1:])[0].notes))
