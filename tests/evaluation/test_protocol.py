import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from darec.data.catalog import Catalog
from darec.data.splits import Cases, Split
from darec.errors import DataError
from darec.evaluation.metrics import exclusion_mask
from darec.evaluation.protocol import rank_cases, shuffle_test, summarize, top_items
from darec.evaluation.slices import slice_metrics

N = 15
CATALOG = Catalog(pd.DataFrame({"item_id": [str(i) for i in range(N)], "title": [f"Film {i}" for i in range(N)]}))


class NextOf:
    """Prefers the item after the last one, then the one after that, and so on around the catalogue."""

    def score(self, histories: Sequence[Sequence[int | str]]) -> np.ndarray:
        last = np.array([history[-1] for history in histories], np.int64)
        return -((np.arange(N) - last[:, None] - 1) % N).astype(np.float32)


class SwitchableNextOf(NextOf):
    def score_without_collaborative(self, histories: Sequence[Sequence[int | str]]) -> np.ndarray:
        return np.zeros((len(histories), N), np.float32)


def make_split(histories: list[list[int]], targets: list[int]) -> Split:
    ids = [f"u{i}" for i in range(len(histories))]
    arrays = [np.array(history, np.int64) for history in histories]
    cases = Cases(ids, arrays, np.array(targets, np.int64))
    return Split(N, arrays, cases, cases)


SPLIT = make_split([[5, 6, 2], [9], [1, 4]], [3, 14, 7])


def test_rank_file_of_a_known_scorer():
    ranks = rank_cases(NextOf(), SPLIT, "test", batch_size=2)
    assert ranks["user_id"].tolist() == ["u0", "u1", "u2"]
    assert ranks["target"].tolist() == [3, 14, 7]
    assert ranks["rank"].tolist() == [1, 5, 3]
    assert ranks["rank_seen_kept"].tolist() == [1, 5, 3]
    assert ranks["history_length"].tolist() == [3, 1, 2]
    assert ranks["target_popularity"].tolist() == [0, 0, 0]
    assert ranks["top_items"][0] == [3, 4, 7, 8, 9, 10, 11, 12, 13, 14]  # 5 and 6 were seen
    assert "rank_cf_off" not in ranks


class TimedNextOf(NextOf):
    """Asked at even times it prefers what comes next, at odd ones whatever is last of all."""

    def __init__(self, at: Sequence[float] = (0, 0, 0)):
        self.at = at

    def asked(self, at: Sequence[float]) -> "TimedNextOf":
        return TimedNextOf(at)

    def score(self, histories: Sequence[Sequence[int | str]]) -> np.ndarray:
        signs = np.array([(-1) ** int(time) for time in self.at])
        return super().score(histories) * signs[:, None]


def test_a_scorer_that_knows_time_is_asked_when_each_target_was_chosen():
    cases = replace(SPLIT.test, asked=np.array([1, 2, 3]))
    ranks = rank_cases(TimedNextOf(), replace(SPLIT, test=cases), "test", batch_size=2)
    assert ranks["rank_seen_kept"].tolist() == [15, 5, 13]  # of 1, 5 and 3; the first and the third turned round
    assert rank_cases(TimedNextOf(), SPLIT, "test", batch_size=3)["rank_seen_kept"].tolist() == [1, 5, 3]


def test_seen_items_are_removed_from_one_rank_and_kept_in_the_other():
    ranks = rank_cases(NextOf(), make_split([[4, 5, 3]], [6]), "valid")
    assert (ranks["rank"][0], ranks["rank_seen_kept"][0]) == (1, 3)


def test_collaborative_knowledge_switched_off_is_ranked_beside():
    ranks = rank_cases(SwitchableNextOf(), SPLIT, "test")
    assert ranks["rank_cf_off"].tolist() == [N - 3, N - 1, N - 2]
    assert ranks["rank_cf_off_seen_kept"].tolist() == [N, N, N]


def test_batch_size_changes_nothing_and_progress_ends_at_all_users():
    calls: list[tuple[int, int]] = []
    one = rank_cases(NextOf(), SPLIT, "test", batch_size=1, on_progress=lambda done, total: calls.append((done, total)))
    pd.testing.assert_frame_equal(one, rank_cases(NextOf(), SPLIT, "test", batch_size=64))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_part_without_cases_is_refused():
    with pytest.raises(DataError, match="no test case"):
        rank_cases(NextOf(), make_split([], []), "test")


def test_summary_follows_from_the_rank_file_and_is_json():
    summary = summarize(rank_cases(SwitchableNextOf(), SPLIT, "test"), CATALOG, SPLIT)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["users"] == 3
    assert summary["seen_removed"].keys() == {
        *("hr@1", "hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr"),
    }
    assert summary["seen_removed"]["hr@1"]["mean"] == pytest.approx(1 / 3)
    assert summary["seen_removed"]["mrr"]["mean"] == pytest.approx((1 + 1 / 5 + 1 / 3) / 3)
    assert summary["cf_off_seen_removed"]["hr@10"]["mean"] == 0
    assert summary["seen_removed"]["hr@1"]["low"] <= 1 / 3 <= summary["seen_removed"]["hr@1"]["high"]
    assert summary["beyond_accuracy"]["catalog_coverage"] == 1
    assert "cf_off_seen_removed" not in summarize(rank_cases(NextOf(), SPLIT, "test"), CATALOG, SPLIT)


def test_shuffling_costs_a_model_of_order_and_nothing_else():
    histories = [[i, (i + 5) % N, (i + 9) % N] for i in range(N)]
    split = make_split(histories, [(history[-1] + 1) % N for history in histories])
    result = shuffle_test(NextOf(), split, "test", seed=0)
    assert result["ndcg@10"] == 1
    assert result["drop"] == pytest.approx(1 - result["shuffled_ndcg@10"])
    assert result["low"] > 0
    assert shuffle_test(NextOf(), split, "test", seed=0, ranks=rank_cases(NextOf(), split, "test")) == result

    class Sum:
        def score(self, histories: Sequence[Sequence[int | str]]) -> np.ndarray:
            return -np.abs(np.arange(N) - np.array([[np.mean(history)] for history in histories])).astype(np.float32)

    assert shuffle_test(Sum(), split, "test", seed=0)["drop"] == 0


def test_slices_cover_every_user_once_and_small_ones_are_not_reliable():
    random = np.random.default_rng(0)
    ranks = pd.DataFrame(
        {
            "rank": random.integers(1, 30, 400),
            "history_length": random.integers(1, 300, 400),
            "target_popularity": random.integers(0, 300, 400),
        }
    )
    rows = slice_metrics(ranks)
    for name in ("history_length", "target_popularity", "cold_target"):
        assert sum(row["users"] for row in rows if row["slice"] == name) == 400
    cold = next(row for row in rows if row["slice"] == "cold_target")
    assert (cold["from"], cold["to"]) == (0, 4)
    members = ranks[ranks["target_popularity"] < 5]
    assert cold["users"] == len(members)
    assert cold["hr@10"]["mean"] == pytest.approx((members["rank"] <= 10).mean())
    assert all(row["reliable"] == (row["users"] >= 100) for row in rows)
    assert {row["reliable"] for row in rows} == {True, False}


def test_top_items_leave_out_excluded_and_impossible_ones():
    scores = np.array([[3.0, 1.0, 2.0, -np.inf, 2.0]])
    assert top_items(scores, [np.array([0])], 10) == [[2, 4, 1]]
    assert top_items(scores, None, 2) == [[0, 2]]


def test_both_forms_of_exclusion_say_the_same():
    lists = [np.array([0, 2]), np.array([], np.int64)]
    mask = exclusion_mask(lists, (2, 3))
    assert mask.tolist() == [[True, False, True], [False, False, False]]
    assert exclusion_mask(mask, (2, 3)).tolist() == mask.tolist()
