"""Plain text to pretrain on: files become documents, each with its source and terms."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pydantic import ValidationError

from darec.config import Section
from darec.data.catalog import Catalog
from darec.errors import DataError
from darec.runs import sha256_of

ITEMS = "items.parquet"


@dataclass(frozen=True)
class Corpus:
    """The documents of one file.

    Attributes:
        file: its name, without the folders above it.
        title: what it is called in a model card.
        terms: under which it may be used.
        bytes: size of the file.
        sha256: of the file.
        documents: texts, none of them blank and no two alike.
    """

    file: str
    title: str
    terms: str
    bytes: int
    sha256: str
    documents: list[str]


class CorpusEntry(Section):
    """One `[[corpus]]` of a corpus list."""

    file: str  # relative to the list
    title: str
    terms: str


def read_corpora(files: Sequence[Path], corpus_list: Path | None = None) -> list[Corpus]:
    """Read the files of a corpus list, then further ones, of which title and terms are not known.

    Args:
        files: .txt, .txt.zst or .parquet files, or folders with an items.parquet.
        corpus_list: a TOML file with a `[[corpus]]` for each file: `file` (relative to the list), `title`, `terms`.

    Raises:
        DataError: there is no file at all, or one that cannot be read or holds no text.
    """
    entries = [] if corpus_list is None else _read_list(corpus_list)
    corpora = [read_corpus(path, entry.title, entry.terms) for path, entry in entries]
    corpora += [read_corpus(path) for path in files]
    if not corpora:
        raise DataError("Pretraining needs text; none is given. Give --text FILE or --corpora LIST.toml.")
    return corpora


def read_corpus(path: Path, title: str | None = None, terms: str = "not stated") -> Corpus:
    """Read one file.

    In a text file blank lines separate documents; where there are none, every line is a document of its own. In a table
    every row is one: worded as the catalogue words an item where the table has titles, or else its text columns one
    below the other. A document that was there before is left out.

    Args:
        path: a .txt, .txt.zst or .parquet file, or a folder with an items.parquet.
        title: what it is called in a model card; the file's name where none is given.
        terms: under which it may be used.

    Raises:
        DataError: it is missing, of another kind, damaged, not UTF-8, or holds no text.
    """
    file = path / ITEMS if path.is_dir() else path
    documents = _read_table(file) if file.suffix == ".parquet" else _split_documents(_read_text(file))
    documents = list(dict.fromkeys(document for document in documents if document.strip()))
    if not documents:
        raise DataError(f"A corpus must hold text; {file} has none. Leave it out, or give another file.")
    return Corpus(file.name, title or path.name, terms, file.stat().st_size, sha256_of(file), documents)


def read_titles(path: Path) -> list[str]:
    """Item titles: those of a catalogue, with their years, or the lines of a text file.

    Raises:
        DataError: the file cannot be read, has no title column, or holds no title.
    """
    file = path / ITEMS if path.is_dir() else path
    if file.suffix == ".parquet":
        table = _read_parquet(file)
        if "title" not in table:
            raise DataError(f"A table of titles must have a column title; {file} has {', '.join(table.columns)}.")
        titles = Catalog(table).titles
    else:
        titles = _read_text(file).splitlines()
    titles = [title.strip() for title in titles if title.strip()]
    if not titles:
        raise DataError(f"A file of titles must hold at least one; {file} has none. Give another file.")
    return titles


def _read_list(path: Path) -> list[tuple[Path, CorpusEntry]]:
    try:
        content = tomllib.loads(_read_text(path, kinds=(".toml",)))
        entries = [CorpusEntry.model_validate(entry) for entry in content["corpus"]]
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not valid TOML: {error}.") from None
    except (KeyError, TypeError):
        raise DataError(f"A corpus list needs a [[corpus]] for each file; {path} has none.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: a [[corpus]] has the keys file, title and terms; {place}: {first['msg']}.") from None
    return [(path.parent / entry.file, entry) for entry in entries]


def _read_text(path: Path, kinds: tuple[str, ...] = (".txt", ".txt.zst")) -> str:
    if not path.name.endswith(kinds):
        raise DataError(f"A text file must end in {' or '.join(kinds)}; got {path}. Rename or convert it.")
    try:
        with pa.input_stream(str(path), compression="zstd" if path.suffix == ".zst" else None) as stream:
            content: bytes = stream.read()
    except FileNotFoundError:
        raise DataError(f"There is no file {path}. Check the path.") from None
    except OSError as error:
        raise DataError(f"{path} is damaged or cannot be read ({error}). Get it again.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"{content[error.start]:#04x} at place {error.start}"
        raise DataError(f"{path} must be UTF-8; got the byte {byte}. Save the file as UTF-8.") from None


def _split_documents(text: str) -> list[str]:
    lines = text.strip().splitlines()
    if all(line.strip() for line in lines):
        return lines
    documents: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            documents[-1].append(line)
        else:
            documents.append([])
    return ["\n".join(document) for document in documents]


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"There is no file {path}. Check the path.") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} must be a Parquet file ({error}). Get it again.") from None


def _read_table(path: Path) -> list[str]:
    table = _read_parquet(path)
    if "title" in table:
        return Catalog(table).full_texts
    texts = [table[name].fillna("").str.strip() for name in table if pd.api.types.is_string_dtype(table[name])]
    return ["\n".join(filter(None, row)) for row in zip(*texts, strict=True)]
