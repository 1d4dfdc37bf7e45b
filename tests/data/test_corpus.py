import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from darec.data.corpus import read_corpora, read_corpus, read_titles
from darec.errors import DataError
from darec.runs import sha256_of

SHARED = Path(os.environ.get("DAREC_SHARED", Path(__file__).parents[3] / "shared"))
FILMS = pd.DataFrame(
    {
        "item_id": ["1", "2"],
        "title": ["Heat", "Café at the Border"],
        "year": [1995, 1979],
        "genres": ["Action|Crime", ""],
        "plot": ["A thief and a detective.", "A border town."],
        "stars": [4.5, 3.0],
    }
)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def compress(path: Path, text: str) -> Path:
    with pa.output_stream(str(path), compression="zstd") as stream:
        stream.write(text.encode())
    return path


def test_blank_lines_separate_documents(tmp_path):
    file = write(tmp_path / "a.txt", "\n\nfirst line\nsecond line\n \t\n\nother document\n\n")
    assert read_corpus(file).documents == ["first line\nsecond line", "other document"]


def test_without_blank_lines_every_line_is_a_document(tmp_path):
    file = write(tmp_path / "a.txt", "one .\ntwo .\nthree .\n")
    assert read_corpus(file).documents == ["one .", "two .", "three ."]


def test_zstandard_file_reads_like_the_plain_one(tmp_path):
    text = "Amélie\n\n东京物语\nby Ozu\n"
    packed = read_corpus(compress(tmp_path / "a.txt.zst", text))
    assert packed.documents == read_corpus(write(tmp_path / "a.txt", text)).documents == ["Amélie", "东京物语\nby Ozu"]


def test_table_with_titles_is_worded_like_the_catalogue(tmp_path):
    FILMS.to_parquet(tmp_path / "items.parquet")
    heat = "Heat (1995). genres: Action, Crime. plot: A thief and a detective."
    border = "Café at the Border (1979). plot: A border town."
    from_folder, from_file = read_corpus(tmp_path), read_corpus(tmp_path / "items.parquet")
    assert from_folder.documents == from_file.documents == [heat, border]
    assert (from_folder.file, from_folder.title) == ("items.parquet", tmp_path.name)


def test_table_without_titles_joins_its_text_columns(tmp_path):
    pd.DataFrame({"question": ["Who?", None], "year": [1, 2], "answer": ["Me.", "You."]}).to_parquet(
        tmp_path / "a.parquet"
    )
    assert read_corpus(tmp_path / "a.parquet").documents == ["Who?\nMe.", "You."]


def test_repeated_document_is_read_once(tmp_path):
    assert read_corpus(write(tmp_path / "a.txt", "same\nother\nsame\n")).documents == ["same", "other"]


def test_corpus_list_brings_titles_and_terms(tmp_path):
    file = write(tmp_path / "a.txt", "one\ntwo\n")
    write(tmp_path / "more.txt", "three\n")
    listed = write(tmp_path / "list.toml", '[[corpus]]\nfile = "a.txt"\ntitle = "Numbers"\nterms = "CC0"\n')
    first, second = read_corpora([tmp_path / "more.txt"], listed)
    assert (first.file, first.title, first.terms) == ("a.txt", "Numbers", "CC0")
    assert (first.bytes, first.sha256) == (8, sha256_of(file))
    assert (second.title, second.terms) == ("more.txt", "not stated")


def test_titles_of_a_catalogue_carry_their_years(tmp_path):
    FILMS.to_parquet(tmp_path / "items.parquet")
    assert read_titles(tmp_path) == ["Heat (1995)", "Café at the Border (1979)"]
    assert read_titles(write(tmp_path / "titles.txt", "Heat\n\n Kite Season \n")) == ["Heat", "Kite Season"]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.txt", None, "There is no file"),
        ("a.parquet", None, "There is no file"),
        ("a.csv", "x", "must end in .txt or .txt.zst"),
        ("a.txt", "", "must hold text"),
        ("a.txt", " \n\t\n", "must hold text"),
        ("a.txt", b"Am\xe9lie", "must be UTF-8; got the byte 0xe9 at place 2"),
        ("a.txt.zst", "not compressed", "is damaged or cannot be read"),
        ("a.parquet", "not a table", "must be a Parquet file"),
    ],
)
def test_file_without_readable_text_is_refused(tmp_path, name, content, complaint):
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(DataError, match=complaint):
        read_corpus(tmp_path / name)


def test_truncated_zstandard_file_is_refused(tmp_path):
    whole = compress(tmp_path / "a.txt.zst", "".join(f"line {number * number}\n" for number in range(5000)))
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(DataError, match="is damaged or cannot be read"):
        read_corpus(whole)


def test_folder_without_a_catalogue_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*items\.parquet"):
        read_corpus(tmp_path)


def test_table_of_numbers_is_refused(tmp_path):
    pd.DataFrame({"year": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="must hold text"):
        read_corpus(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="must have a column title"):
        read_titles(tmp_path / "a.parquet")


def test_no_text_at_all_is_refused():
    with pytest.raises(DataError, match="none is given"):
        read_corpora([])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("corpus = ", "not valid TOML"),
        ("", r"needs a \[\[corpus\]\]"),
        ("corpus = 3", r"needs a \[\[corpus\]\]"),
        ("corpus = []", "none is given"),
        ('[[corpus]]\nfile = "a.txt"\ntitle = "A"', "terms: Field required"),
        ('[[corpus]]\nfile = "a.txt"\ntitle = "A"\nterms = "CC0"\nlicence = "x"', "licence: Extra inputs"),
        ('[[corpus]]\nfile = "a.txt"\ntitle = "A"\nterms = "CC0"', r"There is no file .*a\.txt"),
    ],
)
def test_corpus_list_with_a_mistake_is_refused(tmp_path, content, complaint):
    with pytest.raises(DataError, match=complaint):
        read_corpora([], write(tmp_path / "list.toml", content))


@pytest.mark.skipif(not (SHARED / "text").is_dir(), reason="needs the shared text corpora (DAREC_SHARED)")
def test_shared_corpora_split_as_their_description_says():
    counts = {
        name: len(read_corpus(SHARED / "text" / name).documents)
        for name in ("movie-reviews.txt.zst", "wikipedia-movies.parquet", "movie-plot-sentences.txt.zst")
    }
    assert counts["movie-reviews.txt.zst"] == pytest.approx(2000, abs=10)  # a few reviews are there twice
    assert counts["wikipedia-movies.parquet"] == pytest.approx(36_273, rel=0.01)
    assert counts["movie-plot-sentences.txt.zst"] == pytest.approx(5000, abs=20)
