import math

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, Success, nDCG

from darec.errors import DataError
from darec.evaluation.metrics import (
    bootstrap_interval,
    catalog_coverage,
    hit_rate,
    intra_list_diversity,
    mean_popularity,
    mrr,
    ndcg,
    paired_difference,
    rank_of,
)


def test_metrics_of_hand_computed_ranks():
    ranks = np.array([1, 3, 11])
    assert hit_rate(ranks, 10) == pytest.approx(2 / 3)
    assert hit_rate(ranks, 1) == pytest.approx(1 / 3)
    assert ndcg(ranks, 10) == pytest.approx((1 + 1 / math.log2(4)) / 3)
    assert mrr(ranks) == pytest.approx((1 + 1 / 3 + 1 / 11) / 3)


def test_metrics_of_nobody_are_undefined():
    nobody = np.array([], np.int64)
    assert math.isnan(hit_rate(nobody, 10))
    assert math.isnan(ndcg(nobody, 10))
    assert math.isnan(mrr(nobody))
    assert all(math.isnan(bound) for bound in bootstrap_interval(nobody))


def test_metrics_agree_with_ir_measures():
    random = np.random.default_rng(0)
    scores = random.permuted(np.tile(np.arange(50.0), (40, 1)), axis=1)  # no ties
    targets = random.integers(50, size=40)
    excluded = [random.choice(50, size=random.integers(30), replace=False) for _ in range(40)]
    ranks = rank_of(scores, targets, excluded)
    qrels = {str(user): {str(target): 1} for user, target in enumerate(targets)}
    run = {
        str(user): {str(item): row[item] for item in range(50) if item not in excluded[user] or item == targets[user]}
        for user, row in enumerate(scores)
    }
    oracle = ir_measures.calc_aggregate([Success @ 5, nDCG @ 5, nDCG @ 20, RR], qrels, run)
    assert hit_rate(ranks, 5) == pytest.approx(oracle[Success @ 5], abs=1e-8)
    assert ndcg(ranks, 5) == pytest.approx(oracle[nDCG @ 5], abs=1e-8)
    assert ndcg(ranks, 20) == pytest.approx(oracle[nDCG @ 20], abs=1e-8)
    assert mrr(ranks) == pytest.approx(oracle[RR], abs=1e-8)


def test_constant_scorer_ranks_every_target_last():
    assert rank_of(np.zeros((3, 7)), np.array([0, 3, 6])).tolist() == [7, 7, 7]


def test_a_tie_counts_against_the_target():
    assert rank_of(np.array([[0.5, 0.9, 0.5, 0.1]]), np.array([0])).tolist() == [3]


def test_excluded_items_do_not_compete_and_the_target_always_does():
    scores, targets = np.array([[0.9, 0.8, 0.7, 0.6]]), np.array([2])
    assert rank_of(scores, targets).tolist() == [3]
    assert rank_of(scores, targets, [np.array([0])]).tolist() == [2]
    assert rank_of(scores, targets, [np.array([0, 2])]).tolist() == [2]
    assert rank_of(scores, targets, np.array([[True, True, True, False]])).tolist() == [1]


def test_ranking_leaves_the_callers_mask_as_it_was():
    mask = np.array([[True, False, True]])
    rank_of(np.array([[1.0, 2.0, 3.0]]), np.array([2]), mask)
    assert mask.tolist() == [[True, False, True]]


def test_scores_of_minus_infinity_rank_last():
    assert rank_of(np.array([[-np.inf, 0.0, -np.inf]]), np.array([0])).tolist() == [3]


def test_score_that_is_no_number_is_refused():
    with pytest.raises(DataError, match="row 1 has NaN for item 2"):
        rank_of(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, np.nan]]), np.array([0, 0]))


def test_beyond_accuracy_of_hand_made_lists():
    lists = [[0, 1], [0, 2]]
    assert catalog_coverage(lists, 10) == pytest.approx(0.3)
    assert mean_popularity(lists, np.array([8, 4, 0, 99])) == pytest.approx(5)
    # {heat, crime} and {heat, drama} share one word of three; {heat, crime} and {babe} share none.
    assert intra_list_diversity(lists, ["Heat. Crime", "heat drama", "Babe"]) == pytest.approx((2 / 3 + 1) / 2)
    assert intra_list_diversity([[0, 1]], ["Heat", "heat."]) == 0
    assert math.isnan(intra_list_diversity([[0]], ["Heat"]))


def test_interval_holds_the_mean_narrows_with_users_and_repeats_by_seed():
    values = np.random.default_rng(0).random(1600)
    low, high = bootstrap_interval(values, 3)
    assert low < values.mean() < high
    assert (low, high) == bootstrap_interval(values, 3)
    few_low, few_high = bootstrap_interval(values[:100], 3)
    assert few_high - few_low > 2 * (high - low)
    assert bootstrap_interval(np.ones(5)) == (1.0, 1.0)


def test_interval_has_the_width_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(size=2000)
    low, high = bootstrap_interval(values)
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(2000), rel=0.1)


def test_pairing_sees_a_small_constant_gain_that_two_intervals_hide():
    users = np.random.default_rng(0).normal(size=50)
    mean, low, high = paired_difference(users + 0.01, users)
    assert mean == pytest.approx(0.01)
    assert low > 0.0099
    assert high < 0.0101


def test_pairs_of_unequal_length_are_refused():
    with pytest.raises(DataError, match="same users on both sides; got 3 and 2"):
        paired_difference(np.zeros(3), np.zeros(2))
