import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from darec.data.interactions import Dataset, validated
from darec.data.k_core import k_core
from darec.data.splits import SECONDS_A_DAY, split
from darec.errors import DataError

SHARED = Path(os.environ.get("DAREC_SHARED", Path(__file__).parents[3] / "shared")) / "data"
ITEMS = pd.DataFrame({"item_id": [str(i) for i in range(10)], "title": [f"Film {i}" for i in range(10)]})


def dataset(histories: dict[str, list[int]], labels: dict[str, list[str]] | None = None) -> Dataset:
    rows = [
        {"user_id": user, "item_id": str(item), "timestamp": time}
        | ({"split": labels[user][time]} if labels is not None else {})
        for user, history in histories.items()
        for time, item in enumerate(history)
    ]
    return validated(pd.DataFrame(rows), ITEMS, "toy")


def as_lists(cases) -> list[tuple[str, list[int], int]]:
    return [(u, h.tolist(), int(t)) for u, h, t in zip(cases.user_ids, cases.histories, cases.targets, strict=True)]


def test_leave_one_out_holds_the_last_two_items_out_and_short_users_only_train():
    found = split(dataset({"u": [5, 3, 8, 1], "v": [2], "w": [4, 6], "x": [7, 0, 9]}))
    assert [items.tolist() for items in found.train] == [[5, 3], [2], [4, 6], [7]]
    assert as_lists(found.valid) == [("u", [5, 3], 8), ("x", [7], 0)]
    assert as_lists(found.test) == [("u", [5, 3, 8], 1), ("x", [7, 0], 9)]
    assert found.popularity.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]
    assert found.num_items == 10


def test_each_case_is_asked_when_its_target_was_chosen():
    data = dataset({"u": [5, 3, 8, 1], "v": [2], "x": [7, 0, 9]})
    dated = validated(data.interactions.assign(timestamp=data.interactions["timestamp"] + 10**9), ITEMS, "toy")
    found = split(dated)
    assert (found.valid.asked.tolist(), found.test.asked.tolist()) == ([10**9 + 2, 10**9 + 1], [10**9 + 3, 10**9 + 2])
    assert found.test.subset(np.array([1])).asked.tolist() == [10**9 + 2]
    assert found.test.asked_at(0) == 10**9 + 3
    only_ordered = split(data)
    assert (only_ordered.test.asked, only_ordered.test.asked_at(0), only_ordered.first_taken) == (None, None, None)


def test_a_sample_is_a_part_of_the_users_in_their_order_and_leaves_the_test_cases_whole():
    found = split(dataset({str(user): [(user + step) % 10 for step in range(4)] for user in range(10)}))
    part = found.sample(4, seed=1)
    firsts = [history[0] for history in part.train]
    assert len(firsts) == len(part.valid) == 4
    assert firsts == sorted(set(firsts)) != [0, 1, 2, 3]
    assert as_lists(part.valid) == [case for case in as_lists(found.valid) if case[1][0] in firsts]
    assert as_lists(part.test) == as_lists(found.test)
    again, other = ([items[0] for items in found.sample(4, seed).train] for seed in (1, 2))
    assert again == firsts != other
    assert found.sample(0, seed=1) is found.sample(10, seed=1) is found


def test_new_items_are_cold_ones_that_have_not_been_there_for_long():
    start, day = 10**9, 86_400
    users = {"u": [0, 1, 2, 3, 9], "v": [0, 1, 5, 3, 4], "w": [6] * 5 + [0, 2]}
    times = {"u": [0, 41, 99, 100, 101], "v": [39, 40, 100, 101, 102], "w": [90] * 7}
    rows = [
        (user, str(item), start + day * time)
        for user, own in users.items()
        for item, time in zip(own, times[user], strict=True)
    ]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    found = split(validated(table, ITEMS, "toy"))
    # In training: 0 on days 0 and 39, 1 on 40 and 41, 2 on 99, 5 on 100, 6 five times. All else has none.
    days_before = (found.trained_until - found.first_taken) / SECONDS_A_DAY
    assert days_before.tolist() == [100, 60, 1, 0, 0, 0, 10, 0, 0, 0]
    assert found.new_items.tolist() == [False, True, True, True, True, True, False, True, True, True]
    assert replace(found, first_taken=None).new_items.tolist() == [True] * 6 + [False] + [True] * 3


def test_published_labels_hold_whole_users_out():
    labels = {"u": ["train"] * 3, "v": ["val"] * 3, "w": ["test"] * 2}
    found = split(dataset({"u": [1, 2, 3], "v": [4, 5, 6], "w": [7, 8]}, labels))
    assert [items.tolist() for items in found.train] == [[1, 2, 3]]
    assert as_lists(found.valid) == [("v", [4, 5], 6)]
    assert as_lists(found.test) == [("w", [7], 8)]


def test_of_several_rows_with_one_label_the_last_is_the_target():
    labels = {"u": ["train", "train", "val", "val", "test", "test"]}
    found = split(dataset({"u": [0, 1, 2, 3, 4, 5]}, labels))
    assert as_lists(found.valid) == [("u", [0, 1, 2], 3)]
    assert as_lists(found.test) == [("u", [0, 1, 2, 3, 4], 5)]


def test_a_target_without_history_is_no_case():
    labels = {"u": ["train", "train", "val"], "v": ["val"], "w": ["test"]}
    found = split(dataset({"u": [1, 2, 3], "v": [4], "w": [5]}, labels))
    assert found.valid.user_ids == ["u"]
    assert len(found.test) == 0
    with pytest.raises(DataError, match="has no test case"):
        found.cases("test")


def test_popularity_counts_training_rows_only():
    found = split(dataset({"u": [1, 1, 2, 3], "v": [1, 4, 5]}))
    assert found.popularity[[1, 2, 3, 4, 5]].tolist() == [3, 0, 0, 0, 0]


def test_subset_keeps_the_order_asked_for():
    cases = split(dataset({"u": [1, 2, 3, 4], "v": [4, 5, 6], "w": [7, 8, 9]})).test
    assert as_lists(cases.subset(np.array([2, 0]))) == [("w", [7, 8], 9), ("u", [1, 2, 3], 4)]


def test_a_split_against_time_is_refused():
    labels = {"u": ["train", "train", "val"], "v": ["train", "test", "train"]}
    with pytest.raises(DataError, match=r"must follow time.*user 'v' has train after test"):
        split(dataset({"u": [1, 2, 3], "v": [4, 5, 6]}, labels))


def test_without_training_or_validation_there_is_one_clear_error():
    with pytest.raises(DataError, match="Training needs a user with two training interactions"):
        split(dataset({"u": [1, 2]}, {"u": ["val", "test"]}))
    with pytest.raises(DataError, match=r"the data set has none. Label rows val"):
        split(dataset({"u": [1, 2, 3]}, {"u": ["train", "train", "test"]}))
    with pytest.raises(DataError, match=r"the data set has none. Give users with three interactions"):
        split(dataset({"u": [1, 2], "v": [3, 4]}))


def test_an_evaluation_only_set_cannot_be_trained_on():
    if not (SHARED / "sdpo-lastfm").is_dir():
        pytest.skip(f"{SHARED / 'sdpo-lastfm'} is not there; set DAREC_SHARED to a folder with data/sdpo-lastfm")
    with pytest.raises(DataError, match="Training needs"):
        split(Dataset.load(SHARED / "sdpo-lastfm"))


@pytest.mark.parametrize(
    ("name", "counts"),
    [("llara-movielens", (754, 94, 95)), ("llara-lastfm", (976, 122, 122)), ("ml-100k", (943, 943, 943))],
)
def test_real_splits_have_their_published_sizes(name, counts):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not there; set DAREC_SHARED to a folder with data/{name}")
    found = split(Dataset.load(SHARED / name))
    assert (len(found.train), len(found.valid), len(found.test)) == counts


def test_k_core_repeats_until_nothing_changes():
    # w has one row, so c drops to one row, so v drops to one row: only u and x with a and b stay
    pairs = [("u", "a"), ("u", "b"), ("x", "a"), ("x", "b"), ("v", "a"), ("v", "c"), ("w", "c")]
    rows = pd.DataFrame(pairs, columns=["user_id", "item_id"])
    assert list(map(tuple, k_core(rows, 2).to_numpy())) == pairs[:4]
    assert k_core(rows, 2).index.tolist() == [0, 1, 2, 3]
    assert k_core(rows, 0).equals(rows)
    assert k_core(rows, 1).equals(rows)


def test_a_k_core_with_nothing_left_is_refused():
    rows = pd.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "b"]})
    with pytest.raises(DataError, match="No interaction is left where every user and item must have 2"):
        k_core(rows, 2)
