"""The shipped demo: whole, small, as its card says, and sensible to a person who knows films."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from darec.data.demo.freeze import WORLD, sha256_of_rows
from darec.data.interactions import Dataset
from darec.data.splits import COLD_BELOW
from darec.evaluation.metrics import gains
from darec.evaluation.protocol import rank_cases
from darec.model_card import VARIANTS, describe
from darec.rebuild import CARD, RANKS, README, SHIPPED_BASELINES
from darec.runs import verify_manifest
from darec.serving import Recommender, find_runs

DEMO = Path(__file__).parents[1] / "assets" / "models" / "demo"
MAX_BYTES = 25_000_000
CHECKED_USERS = 64


@pytest.fixture(scope="module")
def card() -> dict:
    return json.loads((DEMO / CARD).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def darec() -> Recommender:
    return Recommender.load(DEMO / "darec")


def test_all_files_are_there_with_the_bytes_recorded_and_small():
    verify_manifest(DEMO)
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) < MAX_BYTES


def test_card_says_what_the_rank_files_say(card):
    darec = pd.read_parquet(DEMO / "darec" / RANKS)
    late = (darec["target_popularity"] < COLD_BELOW).to_numpy()
    for run in find_runs(DEMO):
        ranks = pd.read_parquet(run / RANKS)
        assert ranks["user_id"].equals(darec["user_id"])
        assert len(ranks) == card["users"]
        ours, theirs = (gains(frame["rank"].to_numpy(), 10) for frame in (darec, ranks))
        figures = card["models"][run.name]
        assert figures["seen_removed"]["ndcg@10"]["mean"] == pytest.approx(theirs.mean(), abs=1e-12)
        cold = next(row for row in figures["slices"] if row["slice"] == "cold_target" and row["from"] == 0)
        assert cold["ndcg@10"]["mean"] == pytest.approx(theirs[late].mean(), abs=1e-12)
        if run.name != "darec":
            beyond = card["darec minus"][run.name]
            assert beyond["all"]["difference"] == pytest.approx((ours - theirs).mean(), abs=1e-12)
            assert beyond["late releases"]["difference"] == pytest.approx((ours - theirs)[late].mean(), abs=1e-12)


def test_shipped_data_are_those_of_the_frozen_world():
    data, world = Dataset.load(DEMO / "data"), json.loads(WORLD.read_text(encoding="utf-8"))
    assert sha256_of_rows(data.interactions) == world["interactions_sha256"]
    assert sha256_of_rows(data.catalog.items) == world["items_sha256"]


def test_darec_has_the_lead_that_the_demo_world_was_made_for(card):
    ndcg = {name: figures["seen_removed"]["ndcg@10"]["mean"] for name, figures in card["models"].items()}
    minus = card["darec minus"]
    assert ndcg["sasrec"] < 0.75 * ndcg["ceiling"]  # or the world would be too easy
    assert ndcg["darec"] >= 1.15 * ndcg["sasrec"]
    assert minus["sasrec"]["all"]["low"] > 0
    assert minus["sasrec_text"]["late releases"]["low"] > 0
    assert minus["text_neighbours"]["late releases"]["low"] > 0
    assert {"twin", "darec in full precision", "itemknn", "popularity", *VARIANTS} <= ndcg.keys()


def test_the_card_in_words_says_what_the_card_in_figures_says(card):
    assert (DEMO / README).read_text(encoding="utf-8") == describe(card)


def test_git_checks_shipped_files_out_as_they_are():
    """A carriage return more in a JSON file, as Git for Windows adds unless told, and no checksum would hold."""
    attributes = (DEMO.parents[2] / ".gitattributes").read_text(encoding="utf-8").split("\n")
    assert "* -text" in attributes


@pytest.mark.parametrize("name", [*VARIANTS, *SHIPPED_BASELINES])
def test_shipped_model_gives_the_ranks_recorded(name: str):
    """Computed anew for some viewers, with CF and without, seen films removed and kept.

    Rounding differs between machines, so a near tie may change places: no rank by more than a fifth, most not at all.
    """
    recommender = Recommender.load(DEMO / name)
    parts = recommender.split
    chosen = np.sort(np.random.default_rng(0).permutation(len(parts.test))[:CHECKED_USERS])
    few = replace(parts, test=parts.test.subset(chosen))
    ranks = rank_cases(recommender.scorer, few, "test", batch_size=16)
    recorded = pd.read_parquet(DEMO / name / RANKS).iloc[chosen].reset_index(drop=True)
    assert list(recorded.columns) == list(ranks.columns)
    assert recorded[["user_id", "target"]].equals(ranks[["user_id", "target"]])
    for column in [column for column in recorded if column.startswith("rank")]:
        differences = np.abs(np.log(ranks[column]) - np.log(recorded[column]))
        assert np.median(differences) == 0
        assert differences.max() < 0.2
        assert gains(ranks[column].to_numpy(), 10).mean() == pytest.approx(
            gains(recorded[column].to_numpy(), 10).mean(), abs=0.01
        )


def titles_after(darec: Recommender, *history: str, k: int) -> list[str]:
    """What is recommended after these titles; each must be in the catalogue as it is written."""
    items = [darec.catalog.titles.index(title) for title in history]
    return [line.title for line in darec.recommend(items, k=k)]


@pytest.mark.parametrize(
    ("history", "next_part"),
    [
        (
            (
                "The Lord of the Rings: The Fellowship of the Ring (2001)",
                "The Lord of the Rings: The Two Towers (2002)",
            ),
            "The Lord of the Rings: The Return of the King (2003)",
        ),
        (("Star Wars (1977)", "The Empire Strikes Back (1980)"), "Return of the Jedi (1983)"),
        (("Toy Story (1995)", "Toy Story 2 (1999)"), "Toy Story 3 (2010)"),
        (("The Godfather (1972)",), "The Godfather Part II (1974)"),
        (("Before Sunrise (1995)",), "Before Sunset (2004)"),
        (("Back to the Future (1985)",), "Back to the Future Part II (1989)"),
    ],
)
def test_next_part_stands_at_the_top(darec: Recommender, history: tuple[str, ...], next_part: str):
    assert titles_after(darec, *history, k=1) == [next_part]


@pytest.mark.parametrize(
    ("unwatched", "kindred"),
    [
        ("Kingdom of the Planet of the Apes (2024)", "Rise of the Planet of the Apes (2011)"),
        ("28 Years Later (2025)", "28 Weeks Later (2007)"),
        ("The Conjuring: Last Rites (2025)", "The Conjuring 2 (2016)"),
        ("Mission: Impossible - The Final Reckoning (2025)", "Mission: Impossible - Ghost Protocol (2011)"),
    ],
)
def test_a_film_that_nobody_watched_is_known_by_its_text(darec: Recommender, unwatched: str, kindred: str):
    item = darec.catalog.titles.index(unwatched)
    assert darec.split.popularity[item] == 0
    assert kindred in titles_after(darec, unwatched, k=5)
