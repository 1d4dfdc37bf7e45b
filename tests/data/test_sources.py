import gzip
import json
import os
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from darec.data.interactions import Dataset
from darec.data.sources import prepare
from darec.data.sources.movielens import split_title
from darec.errors import DataError, RunError

SHARED = Path(os.environ.get("DAREC_SHARED", Path(__file__).parents[3] / "shared")) / "data"


def u_item(item_id: int, title: str, *flags: int) -> str:
    genres = "|".join("1" if flag in flags else "0" for flag in range(19))
    return f"{item_id}|{title}|01-Jan-1995||http://example.org/{item_id}|{genres}\n"


FORMATS: dict[str, dict[str, bytes]] = {
    "ml-100k": {
        "ml-100k/u.data": b"7\t1\t5\t30\n7\t2\t3\t10\n9\t2\t4\t20\n7\t3\t1\t20\n",
        "ml-100k/u.item": (
            u_item(1, "Godfather, The (1972)", 6, 8) + u_item(2, "Am\xe9lie (2001)", 5) + u_item(3, "unknown", 0)
        ).encode("iso-8859-1"),
        "ml-100k/u.user": b"7|24|M|technician|85711\n",
    },
    "ml-1m": {
        "ml-1m/ratings.dat": b"7::1::5::30\n7::2::3::10\n9::2::4::20\n7::3::1::20\n",
        "ml-1m/movies.dat": (
            "1::Godfather, The (1972)::Crime|Drama\n2::Am\xe9lie (2001)::Comedy\n3::unknown::unknown\n"
        ).encode("iso-8859-1"),
    },
    "ml-latest": {
        "ml-latest/ratings.csv": (
            b"userId,movieId,rating,timestamp\r\n7,1,5.0,30\r\n7,2,3.0,10\r\n9,2,4.0,20\r\n7,3,1.0,20"
        ),
        "ml-latest/movies.csv": (
            'movieId,title,genres\r\n1,"Godfather, The (1972)",Crime|Drama\r\n'
            "2,Amélie (2001),Comedy\r\n3,unknown,unknown"
        ).encode(),
    },
    "recbole": {
        "toy/toy.inter": (
            b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
            b"7\t1\t5\t30\n7\t2\t3\t1E1\n9\t2\t4\t20\n7\t3\t1\t20\n"
        ),
        "toy/toy.item": (
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\tprice:float\n"
            "1\tThe Godfather\t1972\tCrime|Drama\t2.5\n2\tAmélie\t2001\tComedy\t1\n3\tunknown\t\tunknown\t1\n"
        ).encode(),
    },
    "tables": {
        "interactions.csv": b"user_id,item_id,timestamp,rating\n7,1,30,5\n7,2,10,3\n9,2,20,4\n7,3,20,1\n",
        "items.csv": (
            "\ufeffitem_id,title,year,genres\n"
            "1,The Godfather,1972,Crime|Drama\n2,Amélie,2001,Comedy\n3,unknown,,unknown\n"
        ).encode(),
    },
}
AMAZON_REVIEWS = [
    {"reviewerID": "A1", "asin": "0001", "overall": 5.0, "unixReviewTime": 200, "reviewText": "fine"},
    {"reviewerID": "A1", "asin": "B002", "overall": 1.0, "unixReviewTime": 100, "reviewText": "poor"},
    {"reviewerID": "A2", "asin": "B003", "overall": 4.0, "unixReviewTime": 300, "reviewText": "ok"},
]


def as_folder(files: dict[str, bytes], path: Path) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def as_zip(files: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr("__MACOSX/._u.data", b"\x00")
    return path


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("pack", [as_folder, as_zip])
@pytest.mark.parametrize("layout", FORMATS)
def test_every_format_gives_the_same_normalised_pair(layout, pack, tmp_path):
    report = prepare(str(pack(FORMATS[layout], tmp_path / "source")), tmp_path / "out")
    data = Dataset.load(tmp_path / "out")
    rows = data.interactions[["user_id", "item_id", "timestamp", "rating"]]
    assert [tuple(row) for row in rows.to_numpy()] == [
        ("7", "2", 10, 3.0),
        ("7", "3", 20, 1.0),
        ("7", "1", 30, 5.0),
        ("9", "2", 20, 4.0),
    ]
    assert data.catalog.titles == ["The Godfather (1972)", "Amélie (2001)", "unknown"]
    assert data.catalog.short_texts[0] == "The Godfather (1972), Crime, Drama"
    assert (report.users, report.items, report.interactions, report.median_length) == (2, 3, 4, 2.0)
    assert (report.split, report.items_without_interactions) == ("leave-one-out", 0)
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["format"] == report.format


@pytest.mark.parametrize(
    ("text", "title", "year"),
    [
        ("Godfather, The (1972)", "The Godfather", "1972"),
        ("American in Paris, An (1951) ", "An American in Paris", "1951"),
        ("Godfather: Part II, The (1974)", "The Godfather: Part II", "1974"),
        ("Misérables, Les (1995)", "Misérables, Les", "1995"),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", "1968"),
        ("Land Before Time III (1995) (V)", "Land Before Time III (1995) (V)", ""),
        ("Fawlty Towers (1975-1979)", "Fawlty Towers (1975-1979)", ""),
        ("Relic, The", "The Relic", ""),
        ("unknown", "unknown", ""),
    ],
)
def test_a_movielens_title_splits_into_title_and_year(text, title, year):
    assert split_title(text) == (title, year)


@pytest.mark.parametrize("name", ["ml-latest-small", "llara-movielens"])
def test_titles_of_real_films_split_as_they_were_split_before(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not there; set DAREC_SHARED to a folder with data/{name}")
    items = pd.read_parquet(SHARED / name / "items.parquet")
    expected = [
        (title, "" if pd.isna(year) else str(int(year))) for title, year in zip(items.title, items.year, strict=True)
    ]
    assert [split_title(text) for text in items.title_source] == expected


@pytest.mark.parametrize("gzipped", [True, False])
@pytest.mark.parametrize("edition", ["2014", "2018"])
def test_amazon_reviews_and_metadata_of_both_editions(edition, gzipped, tmp_path):
    products = [
        {"asin": "B999", "title": "Never reviewed"},
        {"asin": "B002", "title": "Nail &amp; File  Set", "brand": "Acme"},
        {"asin": "0001", "title": "Brush", "description": "It's good"},
        {"asin": "B002", "title": "A second line of the same product"},
    ]
    paths = [[["Beauty"]], [["Beauty", "Nails"], ["Gifts", "Sets"]], [["Beauty", "Hair"]], [[]]]
    for product, path in zip(products, paths, strict=True):
        product |= {"categories": path} if edition == "2014" else {"category": path[0]}
    metadata = "".join(f"{p!r}\n" for p in products).encode() if edition == "2014" else lines(products)
    wrap, end = (gzip.compress, ".json.gz") if gzipped else (bytes, ".json")
    source = {f"reviews_Beauty_5{end}": wrap(lines(AMAZON_REVIEWS)), f"meta_Beauty{end}": wrap(metadata)}
    report = prepare(str(as_folder(source, tmp_path / "source")), tmp_path / "out")
    data = Dataset.load(tmp_path / "out")
    assert data.interactions["item_id"].tolist() == ["B002", "0001", "B003"]
    assert list(data.catalog.item_ids) == ["B002", "0001", "B003"]
    assert data.catalog.titles == ["Nail & File Set", "Brush", "Item B003"]
    second_path = " | Gifts > Sets" if edition == "2014" else ""
    assert data.catalog.items["category"].tolist() == [f"Beauty > Nails{second_path}", "Beauty > Hair", ""]
    assert report.users == 2


def test_code_in_a_title_of_amazon_counts_as_no_title(tmp_path):
    products = [
        {"asin": asin, "title": title} for asin, title in [("0001", "var x = getTime();"), ("B002", "y" * 3000)]
    ]
    source = {"r.json": lines(AMAZON_REVIEWS), "m.json": lines(products)}
    prepare(str(as_folder(source, tmp_path / "source")), tmp_path / "out")
    assert Dataset.load(tmp_path / "out").catalog.titles == ["Item 0001", "Item B002", "Item B003"]


def test_items_without_interactions_stay_also_those_that_the_k_core_leaves_without(tmp_path):
    source = {
        "interactions.csv": b"user_id,item_id,timestamp\nu,a,1\nu,b,2\nv,a,3\nv,b,4\nw,c,5\n",
        "items.csv": b"item_id,title\na,A\nb,B\nc,C\nd,D\n",
    }
    report = prepare(str(as_folder(source, tmp_path / "source")), tmp_path / "out", min_interactions=2)
    assert (report.users, report.items, report.items_without_interactions) == (2, 4, 2)
    assert (report.interactions, report.removed_interactions) == (4, 1)
    assert list(Dataset.load(tmp_path / "out").catalog.item_ids) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("name", "noted"), [("own films", "own films"), ("demo", "./demo")])
def test_the_note_names_the_source_without_its_place(name: str, noted: str, tmp_path):
    source = {"interactions.csv": b"user_id,item_id,timestamp\n1,7,2\n", "items.csv": b"item_id,title\n7,Heat\n"}
    assert prepare(str(as_folder(source, tmp_path / name)), tmp_path / "out").source == noted
    assert str(tmp_path) not in (tmp_path / "out" / "prepared.json").read_text(encoding="utf-8")


def test_a_published_split_is_kept(tmp_path):
    source = {
        "interactions.csv": b"user_id,item_id,timestamp,split\nu,a,1,train\nu,b,2,valid\nu,a,3,test\n",
        "items.csv": b"item_id,title\na,A\nb,B\n",
    }
    assert prepare(str(as_folder(source, tmp_path / "source")), tmp_path / "out").split == "published"
    assert Dataset.load(tmp_path / "out").interactions["split"].tolist() == ["train", "val", "test"]


def test_a_prepared_folder_can_be_prepared_again(tmp_path):
    prepare(str(as_folder(FORMATS["tables"], tmp_path / "source")), tmp_path / "first")
    prepare(str(tmp_path / "first"), tmp_path / "second")
    for name in ("interactions.parquet", "items.parquet"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(tmp_path / "first" / name), pd.read_parquet(tmp_path / "second" / name)
        )


def test_columns_of_other_names_are_mapped_file_by_file(tmp_path):
    source = {
        "log.tsv": b"reader\tbook\twhen\nu\t001\t2024-01-02\nu\t002\t2024-01-01\n",
        "books.csv": b'id,name,title\n001,"One, two",ignored\n002,Three,ignored\n',
        "notes.csv": b"x,y\n1,2\n",
    }
    columns = {
        "user_id": "reader",
        "interactions.item_id": "book",
        "items.item_id": "id",
        "timestamp": "when",
        "title": "name",
    }
    prepare(str(as_folder(source, tmp_path / "source")), tmp_path / "out", columns=columns)
    data = Dataset.load(tmp_path / "out")
    assert data.interactions["item_id"].tolist() == ["002", "001"]
    assert data.catalog.titles == ["One, two", "Three"]


def test_numbers_in_parquet_and_text_in_csv_give_the_same_ids(tmp_path):
    source = as_folder({"items.csv": FORMATS["tables"]["items.csv"]}, tmp_path / "source")
    rows = pd.DataFrame({"user_id": [7.0, 7.0], "item_id": [1, 3], "timestamp": [1, 2]})
    rows.to_parquet(source / "interactions.parquet")
    prepare(str(source), tmp_path / "out")
    assert Dataset.load(tmp_path / "out").item_index.tolist() == [0, 2]


def replaced(layout: str, name: str, old: bytes, new: bytes) -> dict[str, bytes]:
    assert old in FORMATS[layout][name]
    return FORMATS[layout] | {name: FORMATS[layout][name].replace(old, new)}


def without(layout: str, *names: str) -> dict[str, bytes]:
    return {name: content for name, content in FORMATS[layout].items() if name not in names}


ITEMS_CSV, ROWS_CSV = FORMATS["tables"]["items.csv"], FORMATS["tables"]["interactions.csv"]


def test_a_name_of_ours_that_is_misspelt_is_no_text_column(tmp_path: Path):
    source = as_folder(FORMATS["tables"], tmp_path / "source")
    with pytest.raises(DataError, match=r"'interactions\.usr_id' is none\. Did you mean 'user_id'\?"):
        prepare(str(source), tmp_path / "out", columns={"interactions.usr_id": "user_id"})
    assert not (tmp_path / "out").exists()


def test_a_single_table_is_asked_for_by_its_folder(tmp_path: Path):
    (tmp_path / "x.csv").write_text("user_id,item_id\n")
    with pytest.raises(DataError, match=r"must be a folder or a whole zip.*name the folder that holds it"):
        prepare(str(tmp_path / "x.csv"), tmp_path / "out")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.txt": b"hello"}, r"must hold MovieLens, Amazon or RecBole files.*found notes.txt"),
        ({"interactions.csv": ROWS_CSV}, r"must hold one items file with the columns item_id, title; 0 are there"),
        ({"items.csv": ITEMS_CSV, "interactions.csv": b""}, r"interactions\.csv must have at least one row"),
        ({"items.csv": ITEMS_CSV, "interactions.csv": b"user_id,item_id,timestamp\n"}, r"at least one row"),
        ({"items.csv": ITEMS_CSV, "interactions.csv": b"user,item_id,timestamp\nu,1,1\n"}, r"it lacks user_id"),
        (
            replaced("tables", "items.csv", "é".encode(), b"\xe9"),
            r"items\.csv, line 3: the text must be UTF-8.*0xe9.*Save",
        ),
        (replaced("tables", "items.csv", b"2001", b"2001,x"), r"items\.csv, line 3: a line must have 4 cells; got 5"),
        (replaced("tables", "items.csv", b"3,unknown,,unknown", b"3"), r"items\.csv, line 4: .* 4 cells; got 1"),
        (
            replaced("tables", "items.csv", b"The God", b'"The God'),
            r"items\.csv, line \d: not valid CSV.*quotation mark",
        ),
        (replaced("tables", "items.csv", b"year,genres", b"year,year"), r"a column name must not repeat"),
        (
            replaced("tables", "items.csv", b"Comedy", b"x" * 200_000),
            r"items\.csv, line 3: not valid CSV .*larger than",
        ),
        (
            replaced("tables", "items.csv", b"The Godfather", b"x" * 3000),
            r"items\.csv, line 2: title must have at most",
        ),
        (replaced("tables", "items.csv", b"\n2,", b"\n1,"), r"items\.csv, line 3: an item_id must not repeat; got '1'"),
        (
            replaced("tables", "interactions.csv", b"9,2,20", b"9,8,20"),
            r"interactions\.csv, line 4: every item_id .* '8'",
        ),
        (
            replaced("tables", "interactions.csv", b"9,2,20", b"9,2,noon"),
            r"interactions\.csv, line 4: timestamp .* 'noon'",
        ),
        (
            replaced("tables", "interactions.csv", b"9,2,20", b",2,20"),
            r"interactions\.csv, line 4: user_id must not be",
        ),
        (replaced("ml-1m", "ml-1m/ratings.dat", b"9::2::4", b"9::2:4"), r"ratings\.dat, line 3: .* 4 cells; got 3"),
        (replaced("ml-100k", "ml-100k/u.data", b"9\t2", b"9\t2\t2"), r"u\.data, line 3: .* 4 cells; got 5"),
        (
            replaced("recbole", "toy/toy.inter", b"rating:float", b"rating"),
            r"toy\.inter: a column must be named field:type",
        ),
        (without("recbole", "toy/toy.item"), r"must hold one \.inter and one \.item file; it has toy/toy\.inter"),
        (
            replaced("tables", "interactions.csv", b"9,2,20", b"\n\n9,2,noon"),
            r"interactions\.csv, line 6: timestamp .* 'noon'",
        ),
        (
            {"interactions.csv": ROWS_CSV.replace(b",", b";"), "items.csv": ITEMS_CSV},
            r"it lacks user_id.*found: user_id;item_id",
        ),
        ({"r.json": b"", "m.json": lines([{"asin": "0001"}])}, r"r\.json must have at least one line; it is empty"),
        ({"r.json": lines(AMAZON_REVIEWS)}, r"one reviews file and one metadata file; it has r\.json and no metadata"),
        (
            {"r.json": lines(AMAZON_REVIEWS), "m.json": b"{'asin': 'x'}\n{'asin': 'B002', 'title': 'Na\n"},
            r"m\.json, line 2: a line must be one JSON object; got \"{'asin'",
        ),
        (
            {"r.json.gz": gzip.compress(lines(AMAZON_REVIEWS * 50))[:-20], "m.json": lines([{"asin": "0001"}])},
            r"r\.json\.gz is damaged",
        ),
        ({"interactions.parquet": b"PAR1 no", "items.csv": ITEMS_CSV}, r"interactions\.parquet must be a Parquet file"),
    ],
)
def test_a_bad_source_gives_one_clear_error_and_leaves_nothing_behind(files, message, tmp_path):
    source = as_folder(files, tmp_path / "source")
    (tmp_path / "work").mkdir()
    with pytest.raises(DataError, match=message):
        prepare(str(source), tmp_path / "work" / "out")
    assert list((tmp_path / "work").iterdir()) == []


def test_an_unknown_mapped_column_is_named_with_what_there_is(tmp_path):
    source = as_folder(FORMATS["tables"], tmp_path / "source")
    with pytest.raises(DataError, match=r"column 'reader', given for user_id, must be in .*Found .*user_id, item_id"):
        prepare(str(source), tmp_path / "out", columns={"user_id": "reader"})


def test_a_source_that_is_not_there_or_no_zip_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"There is no .*Give a known name, a zip or a folder"):
        prepare(str(tmp_path / "nowhere"), tmp_path / "out")
    (tmp_path / "broken.zip").write_bytes(as_zip(FORMATS["ml-1m"], tmp_path / "whole.zip").read_bytes()[:200])
    with pytest.raises(DataError, match="must be a folder or a whole zip file"):
        prepare(str(tmp_path / "broken.zip"), tmp_path / "out")


def test_a_flipped_byte_in_a_zip_is_noticed(tmp_path):
    content = b"7::1::5::30\n" * 2000
    archive = as_zip({"ratings.dat": content, "movies.dat": b"1::A (1990)::Drama\n"}, tmp_path / "source.zip")
    data = bytearray(archive.read_bytes())
    data[60] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"ratings\.dat is damaged or cannot be read"):
        prepare(str(archive), tmp_path / "out")


def test_an_output_folder_that_holds_something_is_left_alone(tmp_path):
    source = as_folder(FORMATS["tables"], tmp_path / "source")
    as_folder({"kept.txt": b"mine"}, tmp_path / "out")
    with pytest.raises(RunError, match="must not exist yet"):
        prepare(str(source), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept.txt"]
