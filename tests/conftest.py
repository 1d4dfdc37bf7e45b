"""An invented film shop, and a finished run trained on it, for the tests that need a whole model."""

import os
from collections.abc import Callable
from pathlib import Path

# The tests' models are tiny: a second thread gains nothing, and on a busy machine it waits for a core at every
# operation. Set before torch is imported, and inherited by the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import pytest
import torch
from invented_films import COLD_FILMS, FILMS, SMALL

from darec.baselines import write_baseline_run
from darec.cli import main
from darec.config import Settings
from darec.data.interactions import Dataset, validated
from darec.model.backbone import tiny_backbone
from darec.model.recommender import DarecModel


@pytest.fixture(scope="session")
def film_dataset() -> Dataset:
    """20 films and 60 users who mostly watch the next film of the list after each one."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(60):
        film = int(generator.integers(len(FILMS)))
        seen: list[int] = []
        while len(seen) < 5 + user % 5:
            if film not in seen:
                rows.append((f"user {user}", f"f{film}", len(seen)))
                seen.append(film)
            film = (film + 1) % len(FILMS) if generator.random() < 0.8 else int(generator.integers(len(FILMS)))
    interactions = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    items = pd.DataFrame(FILMS, columns=["title", "year", "genres"])
    items.insert(0, "item_id", [f"f{number}" for number in range(len(FILMS))])
    return validated(interactions, items, source="invented films")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, film_dataset: Dataset) -> Path:
    """The invented films as a prepared folder, in a folder of the module's own."""
    folder = tmp_path_factory.mktemp("films") / "data"
    folder.mkdir()
    film_dataset.save(folder)
    return folder


@pytest.fixture
def run_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs one command line; gives its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return int(stop.value.code or 0), output.out, output.err

    return run


@pytest.fixture(scope="session")
def film_run(tmp_path_factory: pytest.TempPathFactory, film_dataset: Dataset) -> Path:
    """A finished ItemKNN run on the invented films, in a folder named `films`."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "data").mkdir()
    film_dataset.save(folder / "data")
    write_baseline_run("itemknn", folder / "data", folder / "films")
    return folder / "films"


@pytest.fixture(scope="session")
def make_model(film_dataset: Dataset) -> Callable[..., DarecModel]:
    """Makes a model over a tiny backbone of any family, in evaluation mode, windows of 4 films, films 4 and 11 cold.

    `shaken` adds noise to every weight, so that nothing which is zero at first (LoRA, projections) hides a fault.
    """

    def make(family: str = "llama", settings: Settings = SMALL, *, shaken: bool = True) -> DarecModel:
        torch.manual_seed(1)
        popularity = np.full(len(film_dataset.catalog), 9)
        popularity[COLD_FILMS] = 0
        backbone, tokenizer = tiny_backbone(film_dataset.catalog.full_texts, family)
        model = DarecModel(backbone, tokenizer, film_dataset.catalog, popularity, settings).eval()
        if shaken:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.1 * torch.randn_like(parameter)
        model.refresh_item_encodings()
        return model

    return make
