"""The shipped demo: whole, small, as its card says, and sensible to a person who knows films."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from darec.data.splits import split
from darec.evaluation.metrics import gains, rank_of
from darec.rebuild import CARD, RANKS
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
    for run in find_runs(DEMO):
        ranks = pd.read_parquet(run / RANKS)
        assert len(ranks) == card["users"]
        figure = card["models"][run.name]["seen_removed"]["ndcg@10"]["mean"]
        assert figure == pytest.approx(gains(ranks["rank"].to_numpy(), 10).mean(), abs=1e-12)


def test_shipped_model_gives_the_ranks_recorded(darec):
    """Computed anew for some viewers. Rounding differs between machines, so a near tie may change places."""
    recorded = pd.read_parquet(DEMO / "darec" / RANKS).head(CHECKED_USERS)
    cases = split(darec.dataset).test.subset(np.arange(CHECKED_USERS))
    scores = np.concatenate([darec.scorer.score([list(history)]) for history in cases.histories])
    ranks = rank_of(scores, cases.targets, cases.histories)
    assert list(recorded["user_id"]) == list(cases.user_ids)
    differences = np.abs(np.log(ranks) - np.log(recorded["rank"].to_numpy()))
    assert np.median(differences) == 0
    assert differences.max() < 0.2
    assert gains(ranks, 10).mean() == pytest.approx(gains(recorded["rank"].to_numpy(), 10).mean(), abs=0.01)
