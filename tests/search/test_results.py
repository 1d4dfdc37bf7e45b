import json

import numpy as np
import pandas as pd
import pytest

from darec.errors import DataError, RunError
from darec.search.results import (
    best_so_far,
    choose_best_few,
    explained_variance,
    importances,
    load_search,
    pareto_front,
    random_band,
    rank_agreement,
)


def trials(rows: list[tuple[str, float, int]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["sampler", "cross_entropy", "parameters"])
    return table.assign(number=range(len(rows)), architecture="[]")


def test_pareto_front_by_hand():
    table = trials(
        [
            ("bayesian", 3.0, 100),
            ("bayesian", 2.0, 200),
            ("bayesian", 2.0, 300),  # as good, but larger
            ("bayesian", 2.5, 200),  # as large, but worse
            ("bayesian", 1.5, 400),
            ("bayesian", 1.5, 400),  # the same again
            ("bayesian", 3.5, 150),
        ]
    )
    assert pareto_front(table)["number"].tolist() == [0, 1, 4]


def test_best_few_are_the_best_the_knee_and_then_the_next_best():
    front = trials([("bayesian", 4.0, 0), ("bayesian", 3.5, 10), ("bayesian", 1.5, 30), ("bayesian", 1.0, 100)])
    # From the line between the ends the scaled sums are 0.1 + 2.5/3 and 0.3 + 0.5/3: the third is the knee.
    assert choose_best_few(front, 3)["number"].tolist() == [3, 2, 1]
    assert choose_best_few(front, 1)["number"].tolist() == [3]
    assert choose_best_few(front[:2], 3)["number"].tolist() == [1, 0]
    assert choose_best_few(front[:1], 3)["number"].tolist() == [0]


def test_band_of_the_lowest_of_two_draws_by_hand():
    # Two draws out of 4, 16 pairs: the lowest is 1 in 7, at most 2 in 12, at most 3 in 15.
    band = random_band(np.array([3.0, 1.0, 4.0, 2.0]), np.array([0, 1, 2]))
    assert band[0].tolist() == [np.inf] * 3
    assert band[1].tolist() == [1.0, 2.0, 4.0]
    assert band[2].tolist() == [1.0, 2.0, 4.0]


def test_band_is_what_resampling_comes_to():
    random = np.random.default_rng(0)
    pool = random.normal(size=60)
    lowest = pool[random.integers(60, size=(40_000, 7))].min(axis=1)
    band = random_band(pool, np.array([7]))[0]
    shares = [(lowest <= value).mean() for value in band]
    assert all(share >= quantile - 0.01 for share, quantile in zip(shares, (0.05, 0.5, 0.95), strict=True))
    below = [(lowest < value).mean() for value in band]
    assert all(share <= quantile + 0.01 for share, quantile in zip(below, (0.05, 0.5, 0.95), strict=True))


def test_random_search_has_the_same_warm_starts():
    table = trials([("warm start", 3.0, 1), ("warm start", 2.5, 1), ("bayesian", 2.7, 1), ("bayesian", 1.0, 1)])
    found = best_so_far(table, np.array([2.0, 9.0]))
    assert found["trial"].tolist() == [1, 2, 3, 4]
    assert found["searched"].tolist() == [3.0, 2.5, 2.5, 1.0]
    assert found["random_high"].tolist() == [3.0, 2.5, 2.5, 2.5]  # two draws miss the 2.0 in a quarter of all cases
    assert found["random_median"].tolist() == [3.0, 2.5, 2.0, 2.0]
    assert best_so_far(table, np.array([]))["random_low"].isna().all()


def test_explained_variance_by_hand():
    # Means 2 and 6 around 4: between 16, within 4, in all 20; corrected by 4 / 2.
    values, classes = np.array([1.0, 3.0, 5.0, 7.0]), np.array(["a", "a", "b", "b"])
    assert explained_variance(values, classes) == pytest.approx((16 - 4 / 2) / 20)
    assert explained_variance(values, np.array(["a", "b", "a", "b"])) == 0.0
    assert np.isnan(explained_variance(values, np.array(list("abcd"))))
    assert np.isnan(explained_variance(np.ones(4), classes))


def test_the_variable_that_matters_is_found_and_the_others_explain_little():
    random = np.random.default_rng(0)
    kinds = np.array(["none", "serial", "parallel"])
    table = pd.DataFrame(
        {
            "sampler": "random",
            "kind_0": kinds[random.integers(3, size=200)],
            "size_0": random.integers(4, 65, size=200),
            "kind_1": kinds[random.integers(3, size=200)],
            "size_1": random.integers(4, 65, size=200),
        }
    )
    table["cross_entropy"] = 3.0 - (table["kind_0"] == "serial") + 0.1 * random.normal(size=200)
    # A searched trial says nothing about chance, and is left out.
    searched = table.iloc[:50].assign(sampler="bayesian", cross_entropy=random.normal(size=50) * 100)
    explained = importances(pd.concat([table, searched])).set_index("variable")["explained"]
    assert explained["kind_0"] > 0.9
    assert explained.drop("kind_0").max() < 0.05


def test_kendalls_tau_by_hand():
    # Of six pairs one is turned around.
    agreement = rank_agreement([1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.4, 0.3])
    assert agreement["tau"] == pytest.approx((5 - 1) / 6)
    assert agreement["n"] == 4
    with pytest.raises(DataError, match="two scores of two architectures or more; got 1 and 1"):
        rank_agreement([1.0], [1.0])


def test_a_run_from_no_search_is_refused(tmp_path):
    (tmp_path / "search.json").write_text(json.dumps({}))
    with pytest.raises(RunError, match="comes from no search"):
        load_search(tmp_path)
