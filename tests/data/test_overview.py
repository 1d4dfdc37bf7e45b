import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from darec.data.interactions import Dataset, validated
from darec.data.overview import (
    find_prepared,
    history_lengths,
    list_sequences,
    read_report,
    split_sizes,
    summarize_dataset,
)
from darec.data.sources import PreparedReport
from darec.data.splits import split

DAY = 86_400
START = 1_000_000_000  # 2001-09-09


def make(lengths: dict[str, int], items: int = 20, *, start: int = START, labels: bool = False) -> Dataset:
    """Each user takes items 0, 1, 2, ..., one a day."""
    rows = [
        (user, f"i{number}", start + number * DAY, "train" if number < length - 2 else ("val", "test")[number % 2])
        for user, length in lengths.items()
        for number in range(length)
    ]
    interactions = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "split"])
    if not labels:
        interactions = interactions.drop(columns="split")
    catalog = pd.DataFrame({"item_id": [f"i{n}" for n in range(items)], "title": [f"Film {n}" for n in range(items)]})
    return validated(interactions, catalog, "made up")


def test_a_data_set_is_counted():
    dataset = make({"a": 6, "b": 4, "c": 5, "d": 3, "e": 3})
    facts = summarize_dataset(dataset, split(dataset))
    assert (facts.users, facts.items, facts.interactions, facts.median_length) == (5, 20, 21, 4.0)
    # In training: a has items 0 to 3, b 0 and 1, c 0 to 2, d and e 0. So 0 alone has five, and 8 of 11 are of 0 and 1.
    assert facts.cold_items == 19
    assert facts.top_tenth == pytest.approx(8 / 11)
    assert facts.period == ("2001-09-09", "2001-09-14")
    assert not facts.published_split


def test_positions_are_no_dates():
    dataset = make({"a": 5}, start=0)
    assert summarize_dataset(dataset, split(dataset)).period is None


def test_a_published_split_is_named():
    dataset = make({"a": 6, "b": 4}, labels=True)
    assert summarize_dataset(dataset, split(dataset)).published_split


def test_lengths_stand_in_the_order_of_users():
    assert history_lengths(make({"b": 3, "a": 6, "c": 4})).tolist() == [3, 6, 4]


def test_a_user_of_two_items_only_trains():
    table = split_sizes(split(make({"a": 6, "b": 2})))
    assert table["part"].tolist() == ["Training", "Validation", "Test"]
    assert table["users"].tolist() == [2, 1, 1]
    assert table["interactions"].tolist() == [6, 1, 1]


def test_sequences_begin_with_the_newest_item_and_say_that_they_are_cut():
    table = list_sequences(make({"a": 5, "b": 2, "c": 3}), limit=2, recent=3)
    assert table.to_dict("records") == [
        {"user_id": "a", "length": 5, "sequence": "Film 4 ← Film 3 ← Film 2 ← …"},
        {"user_id": "b", "length": 2, "sequence": "Film 1 ← Film 0"},
    ]


def test_a_report_is_read_back_and_anything_else_is_none(tmp_path: Path):
    report = PreparedReport("films.zip", "tables", 3, 20, 16, 15, 0, 5.0, "leave-one-out", "Ask.", "")
    path = tmp_path / "prepared.json"
    assert read_report(tmp_path) is None
    path.write_text(json.dumps(asdict(report)))
    assert read_report(tmp_path) == report
    for content in ("{", "[]", '{"source": "x"}'):
        path.write_text(content)
        assert read_report(tmp_path) is None


def test_only_whole_pairs_are_found(tmp_path: Path):
    assert find_prepared(tmp_path / "nowhere") == {}
    for name in ("films", ".films-half", "books"):
        (tmp_path / name).mkdir()
        make({"a": 3}).save(tmp_path / name)
    (tmp_path / "books" / "items.parquet").unlink()
    assert find_prepared(tmp_path) == {"films": tmp_path / "films"}


def test_the_top_tenth_of_equal_items_is_a_tenth():
    rows = [(f"u{user}", f"i{(user + step) % 20}", step) for user in range(20) for step in range(5)]
    interactions = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    items = pd.DataFrame({"item_id": [f"i{n}" for n in range(20)], "title": "x"})
    dataset = validated(interactions, items, "made up")
    assert np.unique(split(dataset).popularity).tolist() == [3]
    assert summarize_dataset(dataset, split(dataset)).top_tenth == pytest.approx(0.1)
