"""What all sessions share: the runs that can be picked and the models loaded from them."""

import argparse
import sys
from pathlib import Path

import streamlit as st

from darec.runs import MANIFEST
from darec.serving import Recommender, find_runs

RUNS = Path("runs")


def list_runs() -> dict[str, Path]:
    """Run folders by the name shown: those given by `--run` first, then those found in ./runs."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run", action="append", type=Path, default=[])
    given: list[Path] = parser.parse_known_args(sys.argv[1:])[0].run
    folders = {folder.resolve(): folder for folder in [*given, *find_runs(RUNS)]}
    runs: dict[str, Path] = {}
    for resolved, folder in folders.items():
        runs[str(folder) if resolved.name in runs else resolved.name] = folder
    return runs


def load_recommender(run: Path) -> Recommender:
    """The model of a run, loaded once for all sessions, and again when the run was written anew.

    Raises:
        DarecError: the folder is no run, or is incomplete or altered.
    """
    manifest = run / MANIFEST
    return _load(str(run), manifest.stat().st_mtime_ns if manifest.is_file() else 0)


@st.cache_resource(max_entries=2, show_spinner="Loading the model …")
def _load(run: str, written_at: int) -> Recommender:
    return Recommender.load(run)
