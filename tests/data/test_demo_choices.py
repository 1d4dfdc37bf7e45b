from dataclasses import replace
from math import exp

import numpy as np
import pandas as pd
import pytest

from darec.data.demo.choices import (
    DAY,
    Moment,
    Tastes,
    Weights,
    lasting_utilities,
    probabilities,
    set_stage,
    shares,
    utilities,
)
from darec.data.demo.films import COLUMNS

WEIGHTS = Weights(
    theme=200,
    genre=100,
    setting=80,
    follow=300,
    mood=150,
    next_now=500,
    next=250,
    skipping=350,
    novelty=120,
    novelty_days=40,
    exploring=0.1,
)
TOY = pd.DataFrame(
    [
        ("a", "A", 1990, "drama", "Ann", "Japan", "sea|war|tea", "Saga", 1, ""),
        ("b", "B", 1995, "drama", "Ann", "Japan", "tea|snow|ice", "Saga", 2, ""),
        ("c", "C", 1998, "comedy", "Bob", "Italy", "sea|sun|ice", "", pd.NA, ""),
        ("d", "D", 2024, "comedy", "Cid", "Italy", "war|sun|jazz", "", pd.NA, ""),
    ],
    columns=COLUMNS,
)
FAME, RELEASED = [50, -20, 30, 0], [0, 0, 0, 100]


@pytest.fixture
def stage():
    return set_stage(TOY, np.array(FAME), np.array(RELEASED))


def viewer(stage, *, themes=("sea", "ice"), genre="drama", setting=("country", "Japan"), follows="Bob"):
    """One viewer with one interest, in the first of three places."""
    interests = np.full((1, 3, 4), -1)
    interests[0, 0] = [
        *(stage.index["theme", theme] for theme in themes),
        stage.index["genre", genre],
        stage.index[setting],
    ]
    return Tastes(interests, np.array([[stage.index["director", follows] if follows else -1, -1]]))


def moment(stage, *, level=4, mood=None, watched=(), day=50):
    """Where she stands after having watched these films, the last one last."""
    seen = np.zeros((1, 4), bool)
    seen[0, list(watched)] = True
    feels = stage.index["theme", mood] if mood else -1
    last = watched[-1] if watched else -1
    return Moment(np.array([[level, 4 - level, 0]]), np.array([feels]), seen, np.array([last]), np.array([day * DAY]))


def test_probabilities_are_those_computed_by_hand(stage):
    tastes = viewer(stage)
    now = moment(stage, level=2, mood="ice", watched=(0,), day=110)
    got = probabilities(stage, lasting_utilities(stage, tastes, WEIGHTS), now, WEIGHTS)[0]
    b = -20 + (200 + 100 + 80) * 2 / 4 + 150 + 500  # one theme, genre, country; mood; the part after the last film
    c = 30 + (200 + 200) * 2 / 4 + 300 + 150  # both themes; the director followed; mood
    d = 0 + 120 * 30 / 40  # out for 10 of 40 days
    taste, fame = [exp(u / 100) for u in (b, c, d)], [exp(u / 100) for u in (-20, 30, 0)]
    want = [0.9 * t / sum(taste) + 0.1 * f / sum(fame) for t, f in zip(taste, fame, strict=True)]
    assert got[0] == 0
    np.testing.assert_allclose(got[1:], want, rtol=1e-4)


def test_part_before_decides_on_a_part(stage):
    tastes = viewer(stage, follows=None)
    lasting = lasting_utilities(stage, tastes, WEIGHTS)
    alone = -20 + 200 + 100 + 80

    def utility_of_b(watched):
        return utilities(stage, lasting, moment(stage, watched=watched), WEIGHTS)[0][0, 1]

    assert utility_of_b(()) == alone - 350
    assert utility_of_b((0,)) == alone + 500
    assert utility_of_b((0, 2)) == alone + 250
    assert utility_of_b((2,)) == alone - 350


def test_film_cannot_be_chosen_before_its_release_nor_twice(stage):
    lasting = lasting_utilities(stage, viewer(stage), WEIGHTS)
    before = probabilities(stage, lasting, moment(stage, watched=(2,), day=99), WEIGHTS)[0]
    after = probabilities(stage, lasting, moment(stage, watched=(2,), day=100), WEIGHTS)[0]
    assert before[3] == before[2] == after[2] == 0
    assert after[3] > 0
    assert before.sum() == pytest.approx(1, abs=1e-12)
    assert after.sum() == pytest.approx(1, abs=1e-12)


def test_novelty_wears_off(stage):
    lasting = lasting_utilities(stage, viewer(stage), WEIGHTS)
    by_day = [utilities(stage, lasting, moment(stage, day=day), WEIGHTS)[0][0] for day in (100, 120, 140, 400)]
    assert [int(utility[3] - by_day[-1][3]) for utility in by_day] == [120, 60, 0, 0]
    assert all((utility[:3] == by_day[0][:3]).all() for utility in by_day)


@pytest.mark.parametrize("level", [0, 1, 2, 3, 4])
def test_interest_counts_in_quarters(stage, level):
    lasting = lasting_utilities(stage, viewer(stage, follows=None), WEIGHTS)
    utility, _ = utilities(stage, lasting, moment(stage, level=level), WEIGHTS)
    assert utility[0, 2] == 30 + 400 * level // 4


def test_shares_follow_the_exponential_and_stop_at_the_bounds():
    utility = np.array([[0, 100, 250, 2000, 9999, -9999]])
    got = shares(utility, np.ones((1, 6), bool))[0]
    np.testing.assert_allclose(got[:4] / got[0], np.exp([0, 1, 2.5, 20]), rtol=1e-4)
    assert got[4] == got[3]
    assert 0 < got[5] < got[0]
    assert got.dtype == np.int64
    assert 1_400 * int(got[3]) < 2**63


def test_without_exploring_only_taste_counts(stage):
    lasting = lasting_utilities(stage, viewer(stage), WEIGHTS)
    pure = probabilities(stage, lasting, moment(stage), replace(WEIGHTS, exploring=0.0))[0]
    lost = probabilities(stage, lasting, moment(stage), replace(WEIGHTS, exploring=1.0))[0]
    assert pure[2] == pure.max()
    np.testing.assert_allclose(
        lost[:3], np.exp(np.array(FAME[:3]) / 100) / np.exp(np.array(FAME[:3]) / 100).sum(), 1e-4
    )
