import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from darec.data.interactions import INTERACTIONS, ITEMS, Dataset, fingerprint, validated
from darec.errors import DataError

SHARED = Path(os.environ.get("DAREC_SHARED", Path(__file__).parents[3] / "shared")) / "data"
# users, interactions, items: as each folder's own README counts them
SHARED_COUNTS = {
    "amazon-beauty": (22_363, 198_502, 12_101),
    "amazon-games": (50_546, 440_264, 16_859),
    "llara-lastfm": (1_220, 52_925, 4_606),
    "llara-movielens": (943, 82_520, 1_682),
    "ml-100k": (943, 100_000, 1_682),
    "ml-1m-last51": (6_040, 275_761, 3_883),
    "ml-latest-small": (671, 100_004, 9_125),
    "sdpo-lastfm": (4_113, 44_684, 4_606),
}


def interactions(**columns) -> pd.DataFrame:
    return pd.DataFrame({"user_id": ["u", "u", "w"], "item_id": ["a", "b", "a"], "timestamp": [1, 2, 3]} | columns)


def items(**columns) -> pd.DataFrame:
    return pd.DataFrame({"item_id": ["a", "b"], "title": ["Heat", "Alien"]} | columns)


def check(rows: pd.DataFrame | None = None, catalog: pd.DataFrame | None = None) -> Dataset:
    return validated(interactions() if rows is None else rows, items() if catalog is None else catalog, "toy")


def test_rows_of_a_user_stand_together_in_time_order_and_ties_keep_file_order():
    rows = pd.DataFrame(
        {"user_id": ["w", "u", "w", "w", "u"], "item_id": ["a", "a", "b", "a", "b"], "timestamp": [5, 9, 5, 1, 2]}
    )
    data = check(rows).interactions
    assert data["user_id"].tolist() == ["w", "w", "w", "u", "u"]
    assert data["item_id"].tolist() == ["a", "a", "b", "b", "a"]
    assert data["timestamp"].tolist() == [1, 5, 5, 2, 9]
    assert data.index.tolist() == [0, 1, 2, 3, 4]


def test_ids_become_text_and_whole_floats_lose_their_fraction():
    rows = interactions(user_id=[1.0, 1.0, 2.0], item_id=[10, 11, 10])
    data = check(rows, items(item_id=["10", " 11 "]))
    assert data.interactions["user_id"].tolist() == ["1", "1", "2"]
    assert data.interactions["item_id"].tolist() == ["10", "11", "10"]
    assert list(data.catalog.item_ids) == ["10", "11"]
    assert data.item_index.tolist() == [0, 1, 0]


def test_iso_times_become_seconds_and_utc_is_meant_where_no_zone_is_given():
    times = ["1970-01-01T00:01:00", "1970-01-01T01:01:01+01:00", "1970-01-02"]
    assert check(interactions(timestamp=times)).interactions["timestamp"].tolist() == [60, 61, 86_400]


def test_times_may_be_datetimes_numbers_in_text_or_fractions():
    dates = pd.to_datetime(["1970-01-01", "1970-01-02", "1970-01-03"])
    assert check(interactions(timestamp=dates)).interactions["timestamp"].tolist() == [0, 86_400, 172_800]
    text = check(interactions(timestamp=["7", "8.0", "9e2"])).interactions["timestamp"]
    assert text.tolist() == [7, 8, 900]
    assert text.dtype == np.int64
    assert check(interactions(timestamp=[0.5, 1.25, 2])).interactions["timestamp"].tolist() == [0.5, 1.25, 2]


def test_valid_and_validation_mean_val():
    data = check(interactions(split=["train", "Valid", "validation"]))
    assert data.interactions["split"].tolist() == ["train", "val", "val"]


def test_columns_outside_the_normalised_form_are_left_out_of_interactions_but_kept_for_items():
    data = check(interactions(position=[1, 2, 3], rating=["4", "", "2.5"]), items(genres=["Crime|Drama", None]))
    assert list(data.interactions) == ["user_id", "item_id", "timestamp", "rating"]
    assert data.interactions["rating"].tolist()[::2] == [4.0, 2.5]
    assert data.catalog.items["genres"].tolist() == ["Crime|Drama", ""]


def test_a_list_of_texts_is_joined():
    assert check(catalog=items(genres=[["Crime", "Drama"], []])).catalog.items["genres"].tolist() == ["Crime|Drama", ""]


def test_a_blank_title_becomes_the_last_step_of_its_category_or_the_id():
    catalog = pd.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": ["", None, "Heat"],
            "category": ["Beauty > Nails > Polish | X > Y", "", ""],
        }
    )
    found = check(catalog=catalog).catalog.items
    assert found["title"].tolist() == ["Polish", "Item b", "Heat"]
    assert found["title_missing"].tolist() == [True, True, False]


def test_words_that_pandas_takes_for_missing_values_are_titles():
    assert check(catalog=items(title=["None", "NaN"])).catalog.titles == ["None", "NaN"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (interactions().drop(columns="timestamp"), r"toy: interactions.parquet must have .* lacks timestamp .*Rename"),
        (interactions()[:0], r"toy: interactions.parquet must have at least one row"),
        (
            interactions(item_id=["a", "b", "z"]),
            r"parquet, row 3: every item_id .* got 'z'.*Add it to items",
        ),
        (interactions(user_id=["u", None, "w"]), r"interactions.parquet, row 2: user_id must not be missing"),
        (interactions(item_id=["a", " ", "a"]), r"row 2: item_id must not be missing"),
        (interactions(user_id=["u", "u", "x" * 300]), r"row 3: user_id must have at most 256 characters"),
        (interactions(user_id=[b"u", b"u", b"w"]), r"row 1: user_id must hold text, not bytes.*\(2 more rows"),
        (interactions(timestamp=[1, None, 3]), r"row 2: timestamp must not be missing"),
        (interactions(timestamp=["1", "", "3"]), r"row 2: timestamp must not be missing"),
        (interactions(timestamp=["1", "2", "soon"]), r"row 3: timestamp must be a number .* ISO 8601 .* got 'soon'"),
        (interactions(timestamp=["2020-01-01", "2020-13-01", "2020-01-03"]), r"row 2: .* got '2020-13-01'"),
        (
            interactions(timestamp=["2020-01-01", "2020-01-02", "7"]),
            r"row 3: .*one kind in all rows; got '7'",
        ),
        (interactions(timestamp=[1, np.inf, 3]), r"row 2: timestamp must be a number"),
        (interactions(rating=["4", "good", "2"]), r"row 2: rating must be a number or nothing; got 'good'"),
        (interactions(split=["train", "dev", "test"]), r"row 2: split must be train, val or test; got 'dev'"),
        (interactions(split=["train", "val", None]), r"row 3: split must be train, val or test; got ''"),
    ],
)
def test_bad_interactions_are_refused_with_file_row_and_remedy(rows, message):
    with pytest.raises(DataError, match=message):
        check(rows)


@pytest.mark.parametrize(
    ("catalog", "message"),
    [
        (items().drop(columns="title"), r"toy: items.parquet must have the columns item_id, title; it lacks title"),
        (items()[:0], r"toy: items.parquet must have at least one row"),
        (items(item_id=["a", "a"]), r"items.parquet, row 2: an item_id must not repeat; got 'a'"),
        (items(item_id=["a", None]), r"items.parquet, row 2: item_id must not be missing"),
        (
            items(title=["Heat", "x" * 2001]),
            r"row 2: title must have at most 2,000 characters; got 'xxx",
        ),
        (items(brand=["x" * 100_001, ""]), r"items.parquet, row 1: brand must have at most 100,000 characters"),
        (items(title=[b"Heat", "Alien"]), r"items.parquet, row 1: title must hold text, not bytes"),
    ],
)
def test_bad_items_are_refused_with_file_row_and_remedy(catalog, message):
    with pytest.raises(DataError, match=message):
        check(catalog=catalog)


def test_an_error_names_the_row_of_the_file_although_earlier_rows_were_left_out():
    rows = interactions(timestamp=["1", "x", "later"]).drop(index=1)
    with pytest.raises(DataError, match="row 3: timestamp"):
        check(rows)


def test_an_error_stays_short_whatever_the_value():
    with pytest.raises(DataError) as caught:
        check(interactions(timestamp=["1", "2", "y" * 10_000]))
    assert len(str(caught.value)) < 400


def test_what_is_saved_is_loaded_again_unchanged(tmp_path):
    data = check(interactions(split=["train", "val", "val"], rating=[1, 2, 3]), items(title=["", "Alien"]))
    data.save(tmp_path)
    again = Dataset.load(tmp_path)
    pd.testing.assert_frame_equal(again.interactions, data.interactions)
    pd.testing.assert_frame_equal(again.catalog.items, data.catalog.items, check_dtype=False)


def test_fingerprint_changes_with_one_cell_and_only_then(tmp_path):
    prints = []
    for number, timestamp in enumerate([3, 3, 4]):
        (tmp_path / str(number)).mkdir()
        check(interactions(timestamp=[1, 2, timestamp])).save(tmp_path / str(number))
        prints.append(fingerprint(tmp_path / str(number)))
    assert prints[0] == prints[1] != prints[2]


def test_a_folder_without_the_pair_and_a_file_that_is_not_parquet_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"must hold interactions\.parquet.*data prepare"):
        Dataset.load(tmp_path)
    (tmp_path / INTERACTIONS).write_text("user_id,item_id\n")
    (tmp_path / ITEMS).write_text("item_id,title\n")
    with pytest.raises(DataError, match=r"interactions\.parquet must be a Parquet file"):
        Dataset.load(tmp_path)


def test_rows_by_user_cover_every_row_once():
    rows = list(check(interactions(user_id=["w", "u", "w"])).rows_by_user())
    assert rows == [("w", slice(0, 2)), ("u", slice(2, 3))]


@pytest.mark.parametrize("name", SHARED_COUNTS)
def test_a_real_set_loads_with_the_counts_it_is_known_by(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not there; set DAREC_SHARED to a folder with data/{name}")
    data = Dataset.load(SHARED / name)
    counts = (len(list(data.rows_by_user())), len(data.interactions), len(data.catalog))
    assert counts == SHARED_COUNTS[name]
    assert all(data.catalog.short_texts)
    assert all(
        len(full) >= len(title) for full, title in zip(data.catalog.full_texts, data.catalog.titles, strict=True)
    )
    assert all(index in data.catalog.find(title) for index, title in enumerate(data.catalog.titles))
