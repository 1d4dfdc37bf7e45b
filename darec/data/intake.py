"""One's own tables on their way in: which column is which, a first look, and a named folder that can be trained on."""

import csv
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

import pandas as pd

from darec.data.interactions import NOTE, Dataset
from darec.data.sources import STAGES, PreparedReport, prepare
from darec.data.sources.files import SourceFiles
from darec.data.splits import split
from darec.errors import DarecError, DataError
from darec.progress import OnProgress, OnStage, say_nothing
from darec.runs import write_json, writing_folder

TABLE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
NEEDED = {"interactions": ("user_id", "item_id", "timestamp"), "items": ("item_id", "title")}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_ALSO_CALLED = {  # without signs and in small letters
    "user_id": ("userid", "user", "customerid", "customer", "reviewerid", "reader", "member", "sessionid"),
    "item_id": ("itemid", "item", "movieid", "movie", "productid", "product", "asin", "isbn", "bookid", "book", "id"),
    "timestamp": ("timestamp", "time", "unixtime", "unixreviewtime", "datetime", "date", "createdat", "watchedat"),
    "title": ("title", "name", "itemname", "movietitle", "productname"),
}


def check_name(name: str) -> str:
    """A name that a folder may have on every system, and that needs no quotation marks in a shell.

    Raises:
        DataError: it is none.
    """
    name = name.strip()
    if not _NAME.fullmatch(name) or PureWindowsPath(name).is_reserved():
        raise DataError(
            "A data set's name has 1 to 64 small letters, digits, - and _, and begins with a letter or digit; "
            f"got {name!r}. Call it my-films, say."
        )
    return name


def stage_pair(folder: Path, interactions: tuple[str, BinaryIO], items: tuple[str, BinaryIO]) -> SourceFiles:
    """Copy two tables into an existing folder, under names that say which is which.

    Args:
        folder: where to put them.
        interactions: the file's name, whose ending tells its format, and its bytes.
        items: likewise.

    Raises:
        DataError: a file is of no format that can be read.
    """
    for table, (name, content) in (("interactions", interactions), ("items", items)):
        suffix = next((ending for ending in TABLE_SUFFIXES if name.lower().endswith(ending)), None)
        if suffix is None:
            raise DataError(f"A table must be {', '.join(TABLE_SUFFIXES)}; got {name!r}. Save it as one of these.")
        with open(folder / f"{table}{suffix}", "wb") as file:
            shutil.copyfileobj(content, file)
    return SourceFiles(folder)


def table_names(files: SourceFiles) -> list[str]:
    """The files of a source that can be tables."""
    return [name for name in files.names if name.lower().endswith(TABLE_SUFFIXES)]


def peek(files: SourceFiles, name: str, rows: int = 5) -> pd.DataFrame:
    """The first rows of a table as the file has them, before anything is checked but the names of its columns.

    Raises:
        DataError: the file cannot be read, or two of its columns are called alike.
    """
    try:
        return _peek(files, name, rows)
    except DataError as error:
        raise DataError(str(error).removeprefix(f"{files.path}: ")) from None  # of a copy, whose place says nothing


def _peek(files: SourceFiles, name: str, rows: int) -> pd.DataFrame:
    separator = "\t" if ".tsv" in PurePosixPath(name).suffixes else ","
    columns = files.distinct_columns_of(name, separator)
    if name.endswith(".parquet"):
        return files.read_parquet(name).head(rows)
    try:
        if separator == "\t":  # where quotation marks mean nothing
            cells: Iterable[list[str]] = (line.rstrip("\r\n").split(separator) for line in files.lines(name))
        else:
            cells = csv.reader(files.lines(name))
        lines = list(islice(cells, 1, rows + 1))
    except csv.Error as error:
        raise DataError(f"{name} is not valid CSV ({error}). Look for an unclosed quotation mark.") from None
    missing = [""] * len(columns)  # a line that is too short or too long is named when the table is checked
    return pd.DataFrame([[*line, *missing][: len(columns)] for line in lines], columns=columns)


def guess_columns(columns: Sequence[str], table: str) -> dict[str, str | None]:
    """For each column that a table needs, the one that is probably meant: so named, or by another usual name."""
    plain = {re.sub(r"[\W_]+", "", column).casefold(): column for column in reversed(columns)}
    guessed: dict[str, str | None] = {}
    for ours in NEEDED[table]:
        names = [ours] if ours in columns else [plain[name] for name in _ALSO_CALLED[ours] if name in plain]
        guessed[ours] = names[0] if names else None
    return guessed


def name_columns(chosen: dict[str, dict[str, str | None]]) -> dict[str, str]:
    """The `columns` of `prepare` from what was chosen in each table: ours to theirs.

    Raises:
        DataError: a needed column is not chosen, or one stands for two.
    """
    columns = {}
    for table, needed in NEEDED.items():
        taken: dict[str, str] = {}
        for ours in needed:
            theirs = chosen[table].get(ours)
            if theirs is None:
                raise DataError(f"The {table} need a column for {ours}; none is chosen. Choose one.")
            if theirs in taken:
                raise DataError(
                    f"A column of the {table} has one meaning; {theirs!r} is chosen for {taken[theirs]} and for "
                    f"{ours}. Choose another for one of them."
                )
            taken[theirs] = ours
            columns[f"{table}.{ours}"] = theirs
    return columns


def prepare_into(
    root: Path,
    name: str,
    source: str | Path,
    *,
    called: str | None = None,
    columns: dict[str, str] | None = None,
    min_interactions: int = 0,
    on_progress: OnProgress | None = None,
    on_stage: OnStage = say_nothing,
) -> PreparedReport:
    """Prepare a source as `root/name`, whole or not at all, and only if it can be trained on.

    Args:
        root: the folder of all data sets.
        name: of this one; see `check_name`.
        source: as `prepare` takes it.
        called: what to call the source in the report and in errors, where its path says nothing to the reader.
        columns: as `prepare` takes them.
        min_interactions: as `prepare` takes it.
        on_progress: as `prepare` takes it.
        on_stage: as `prepare` takes it; told of one stage more, in which something is held out.

    Raises:
        DataError: the name is none, the source breaks a rule, or nothing can be held out of it.
        RunError: there is such a data set already.
    """
    name = check_name(name)
    try:
        with writing_folder(root / name) as folder:
            report = prepare(
                str(source),
                folder,
                columns=columns,
                min_interactions=min_interactions,
                on_progress=on_progress,
                on_stage=lambda number, of, what: on_stage(number, of + 1, what),
            )
            on_stage(STAGES + 1, STAGES + 1, "holding items out")
            split(Dataset.load(folder))  # raises where nothing can be held out
            if called is not None:
                report = replace(report, source=called)
                write_json(folder / NOTE, asdict(report))
            return report
    except DarecError as error:
        if called is None:
            raise
        said = str(error).replace(f"{source}: ", "").replace(str(source), called)
        raise type(error)(said) from None
