"""An invented film shop, and a finished run trained on it, for the tests that need a whole model."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from darec.baselines import write_baseline_run
from darec.data.interactions import Dataset, validated

FILMS = [
    ("The Lighthouse Keeper", 1951, "Drama"),
    ("Lightning over Harbour", 1958, "Thriller"),
    ("A Light in the Attic", 1964, "Comedy"),
    ("Harbour of Ghosts", 1966, "Horror"),
    ("The Paper Astronaut", 1969, "Sci-Fi"),
    ("Return of the Paper Astronaut", 1972, "Sci-Fi"),
    ("Seven Quiet Rivers", 1975, "Drama"),
    ("Café at the Border", 1979, "Romance"),
    ("The Clockmaker's Daughter", 1983, "Fantasy"),
    ("Midnight Orchard", 1985, "Horror|Mystery"),
    ("The Cartographer", 1990, "Adventure"),
    ("Cartographer II: The Blank Map", 1993, "Adventure"),
    ("Snow on the Equator", 1994, "Documentary"),
    ("=1+1: *Love* in [Two] $Parts$ :star: <b>", 1996, "Comedy|Romance"),
    ("The Glass Mountain", 1998, "Fantasy"),
    ("Night Train to Nowhere", 2001, "Thriller"),
    ("The Beekeepers", 2004, "Documentary"),
    ("Two Umbrellas", 2008, "Romance"),
    ("The Last Projectionist", 2012, "Drama"),
    ("Kite Season", 2019, "Comedy"),
]


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


@pytest.fixture(scope="session")
def film_run(tmp_path_factory: pytest.TempPathFactory, film_dataset: Dataset) -> Path:
    """A finished ItemKNN run on the invented films, in a folder named `films`."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "data").mkdir()
    film_dataset.save(folder / "data")
    write_baseline_run("itemknn", folder / "data", folder / "films")
    return folder / "films"
