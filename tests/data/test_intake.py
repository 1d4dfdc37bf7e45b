import gzip
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from darec.data.intake import (
    check_name,
    guess_columns,
    name_columns,
    peek,
    prepare_into,
    stage_pair,
    table_names,
)
from darec.data.interactions import Dataset
from darec.data.sources.files import SourceFiles
from darec.errors import DataError, RunError

LOANS = b"Reader,Book,When,stars\nann,1,1,5\nann,2,2,4\nann,3,3,1\nann,1,4,2\nbo,2,1,3\n"
BOOKS = 'Book,Name,shelf\n1,The Sea,blue\n2,Żółw,green\n3,"Night, again",red\n'.encode()
COLUMNS = {
    "interactions.user_id": "Reader",
    "interactions.item_id": "Book",
    "interactions.timestamp": "When",
    "items.item_id": "Book",
    "items.title": "Name",
}


def stage(folder: Path, interactions: bytes = LOANS, items: bytes = BOOKS, names=("loans.csv", "books.CSV")):
    return stage_pair(folder, (names[0], io.BytesIO(interactions)), (names[1], io.BytesIO(items)))


@pytest.mark.parametrize("name", ["films", "my-films_2", "0", " films ", "a" * 64])
def test_a_plain_name_is_taken_without_blanks_around_it(name: str):
    assert check_name(name) == name.strip()


@pytest.mark.parametrize("name", ["", "Films", "../films", "a/b", ".films", "-films", "fil ms", "con", "a" * 65, "é"])
def test_a_name_that_some_system_refuses_is_none(name: str):
    with pytest.raises(DataError, match="A data set's name has 1 to 64 small letters"):
        check_name(name)


def test_staged_files_are_named_for_what_they_hold(tmp_path: Path):
    assert stage(tmp_path).names == ["interactions.csv", "items.csv"]
    assert (tmp_path / "interactions.csv").read_bytes() == LOANS


def test_another_kind_of_file_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"got 'books\.xlsx'"):
        stage(tmp_path, names=("loans.csv", "books.xlsx"))


def test_only_tables_are_offered(tmp_path: Path):
    for name in ("a.csv", "b.parquet", "c.txt", "d.tsv.gz"):
        (tmp_path / name).touch()
    assert table_names(SourceFiles(tmp_path)) == ["a.csv", "b.parquet", "d.tsv.gz"]


def test_the_first_rows_are_shown_as_the_file_has_them(tmp_path: Path):
    files = stage(tmp_path)
    assert peek(files, "items.csv", 2).to_dict("list") == {
        "Book": ["1", "2"],
        "Name": ["The Sea", "Żółw"],
        "shelf": ["blue", "green"],
    }
    assert peek(files, "items.csv", 9)["Name"].tolist()[-1] == "Night, again"


def test_the_first_rows_of_every_kind_of_table_are_the_same(tmp_path: Path):
    table = pd.DataFrame({"item_id": ["1", "2"], "title": ["The Sea", 'A "quoted" word']})
    table.to_parquet(tmp_path / "items.parquet")
    (tmp_path / "items.tsv.gz").write_bytes(gzip.compress(b'item_id\ttitle\n1\tThe Sea\n2\tA "quoted" word\n'))
    table.to_csv(tmp_path / "items.csv", index=False)
    for name in ("items.parquet", "items.tsv.gz", "items.csv"):
        pd.testing.assert_frame_equal(peek(SourceFiles(tmp_path), name).astype(object), table.astype(object))


@pytest.mark.parametrize("separator", [",", "\t"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, separator: str):
    name = "interactions.csv" if separator == "," else "interactions.tsv"
    lines = (["user_id", "item_id", "user_id"], ["a", "f0", "b"])
    (tmp_path / name).write_text("\n".join(separator.join(line) for line in lines) + "\n")
    with pytest.raises(
        DataError, match=rf"^{name}: a column name must not repeat; got user_id, item_id, user_id\. Rename one"
    ):
        peek(SourceFiles(tmp_path), name)


def test_a_table_that_cannot_be_read_is_named_without_the_path_of_its_copy(tmp_path: Path):
    (tmp_path / "items.csv").write_bytes("item_id,title\n1,Żółw\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"^items\.csv") as caught:
        peek(SourceFiles(tmp_path), "items.csv")
    assert str(tmp_path) not in str(caught.value)


def test_a_broken_line_does_not_hide_the_first_rows(tmp_path: Path):
    files = stage(tmp_path, items=b"Book,Name\n1\n2,b,c\n")
    assert peek(files, "items.csv").to_numpy().tolist() == [["1", ""], ["2", "b"]]


def test_usual_names_are_guessed_and_exact_ones_come_first():
    assert guess_columns(["userId", "movieId", "rating", "timestamp"], "interactions") == {
        "user_id": "userId",
        "item_id": "movieId",
        "timestamp": "timestamp",
    }
    assert guess_columns(["customer", "user_id", "x"], "interactions") == {
        "user_id": "user_id",
        "item_id": None,
        "timestamp": None,
    }
    assert guess_columns(["ASIN", "Product name"], "items") == {"item_id": "ASIN", "title": "Product name"}


def test_what_was_chosen_becomes_columns_of_prepare():
    chosen = {
        "interactions": {"user_id": "Reader", "item_id": "Book", "timestamp": "When"},
        "items": {"item_id": "Book", "title": "Name"},
    }
    assert name_columns(chosen) == COLUMNS
    chosen["interactions"]["timestamp"] = "Book"
    with pytest.raises(DataError, match="'Book' is chosen for item_id and for timestamp"):
        name_columns(chosen)
    with pytest.raises(DataError, match="The items need a column for title; none is chosen"):
        name_columns(
            chosen | {"interactions": chosen["interactions"] | {"timestamp": "When"}, "items": {"item_id": "b"}}
        )


def test_a_pair_with_other_column_names_is_written_and_says_where_it_came_from(tmp_path: Path):
    (tmp_path / "staged").mkdir()
    stage(tmp_path / "staged")
    report = prepare_into(tmp_path, "loans", tmp_path / "staged", called="loans.csv and books.csv", columns=COLUMNS)
    dataset = Dataset.load(tmp_path / "loans")
    assert dataset.interactions["user_id"].tolist() == ["ann"] * 4 + ["bo"]
    assert dataset.catalog.full_texts[1] == "Żółw. shelf: green"
    assert report.source == "loans.csv and books.csv"
    assert json.loads((tmp_path / "loans" / "prepared.json").read_text())["source"] == report.source
    assert (report.users, report.items, report.interactions) == (2, 3, 5)


def test_the_stages_are_told_and_a_stop_in_any_of_them_leaves_nothing(tmp_path: Path):
    (tmp_path / "staged").mkdir()
    stage(tmp_path / "staged")
    told: list[tuple[int, int]] = []
    for stopped in (1, 2, 3, 4):

        def stop(number: int, of: int, what: str, stopped: int = stopped) -> None:
            told.append((number, of))
            if number == stopped:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare_into(tmp_path, "loans", tmp_path / "staged", columns=COLUMNS, on_stage=stop)
        assert [path.name for path in tmp_path.iterdir()] == ["staged"]
    assert told == [(number, 4) for stopped in (1, 2, 3, 4) for number in range(1, stopped + 1)]


def test_a_bad_row_is_named_without_the_path_of_the_copy_and_nothing_is_written(tmp_path: Path):
    (tmp_path / "staged").mkdir()
    stage(tmp_path / "staged", interactions=LOANS.replace(b"ann,3,3", b"ann,9,3"))
    with pytest.raises(DataError) as caught:
        prepare_into(tmp_path, "loans", tmp_path / "staged", called="loans.csv and books.csv", columns=COLUMNS)
    assert str(caught.value) == (
        "interactions.csv, line 4: every item_id must be among the items; got '9'. "
        "Add it to items.csv, or leave the row out."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["staged"]


def test_what_nothing_can_be_held_out_of_is_not_written(tmp_path: Path):
    (tmp_path / "staged").mkdir()
    stage(tmp_path / "staged", interactions=b"Reader,Book,When\nann,1,1\nann,2,2\n")
    with pytest.raises(DataError, match="the data set has none"):
        prepare_into(tmp_path, "loans", tmp_path / "staged", columns=COLUMNS)
    assert [path.name for path in tmp_path.iterdir()] == ["staged"]


def test_an_existing_data_set_stays(tmp_path: Path):
    (tmp_path / "loans").mkdir()
    (tmp_path / "loans" / "mine").touch()
    (tmp_path / "staged").mkdir()
    stage(tmp_path / "staged")
    with pytest.raises(RunError, match="must not exist yet"):
        prepare_into(tmp_path, "loans", tmp_path / "staged", columns=COLUMNS)
    assert (tmp_path / "loans" / "mine").exists()


def test_a_wrong_name_is_refused_before_anything_is_read(tmp_path: Path):
    with pytest.raises(DataError, match=r"got '\.\./loans'"):
        prepare_into(tmp_path, "../loans", tmp_path / "nowhere")
