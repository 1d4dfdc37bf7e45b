"""Files of a source, read in the same way from a folder and from a zip, each error naming the file and the line."""

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from darec.errors import DataError

MAX_LINE = 10_000_000  # bytes
_DAMAGED = (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)
_ROWS_AT_ONCE = 200_000  # Python lists are many times larger than the columns they become


@dataclass(frozen=True, eq=False)
class SourceTables:
    """What a reader found, before it is checked.

    Attributes:
        interactions: user_id, item_id, timestamp, where known rating and split; its index counts from 0 as the file
            does: its rows, or its lines where the index is named `line`.
        items: item_id, title and further text columns; its index likewise.
        files: what the two tables are called in an error.
        format: what the source is, in words.
    """

    interactions: pd.DataFrame
    items: pd.DataFrame
    files: tuple[str, str]
    format: str


@dataclass(frozen=True, eq=False)
class SourceFiles:
    """The files of a folder, two levels deep, or of a zip.

    Attributes:
        path: the folder or the zip.
    """

    path: Path

    @cached_property
    def names(self) -> list[str]:
        """Their paths within the source; hidden ones and what macOS adds to a zip are left out.

        Raises:
            DataError: the source is neither a folder nor a zip.
        """
        if self.path.is_dir():
            found = [*self.path.glob("*"), *self.path.glob("*/*")]
            names = [file.relative_to(self.path).as_posix() for file in found if file.is_file()]
        else:
            try:
                with zipfile.ZipFile(self.path) as archive:
                    names = [name for name in archive.namelist() if not name.endswith("/")]
            except FileNotFoundError:
                raise DataError(f"There is no {self.path}. Give a known name, a zip or a folder.") from None
            except (zipfile.BadZipFile, OSError) as error:
                raise DataError(
                    f"{self.path} must be a folder or a whole zip file ({error}). Get it again, or name the folder "
                    "that holds it and what belongs to it."
                ) from None
        hidden = (".", "__MACOSX")
        shown = [name for name in names if not any(part.startswith(hidden) for part in PurePosixPath(name).parts)]
        return sorted(shown, key=lambda name: (name.count("/"), name))

    def find(self, file_name: str) -> str | None:
        """The path of the file with this name, gzipped or not; the one that lies least deep."""
        wanted = (file_name, f"{file_name}.gz")
        return next((name for name in self.names if PurePosixPath(name).name in wanted), None)

    @contextmanager
    def open(self, name: str) -> Iterator[io.BufferedReader]:
        """Open a file for reading, ungzipped.

        Raises:
            DataError: the zip or the gzip is damaged, or encrypted.
        """
        try:
            with self._open_raw(name) as raw:
                if name.endswith(".gz"):
                    with gzip.open(raw) as unzipped:
                        yield io.BufferedReader(unzipped)
                else:
                    yield raw
        except (*_DAMAGED, OSError, RuntimeError) as error:
            raise DataError(f"{self.path}: {name} is damaged or cannot be read ({error}). Get it again.") from None

    @contextmanager
    def _open_raw(self, name: str) -> Iterator[io.BufferedReader]:
        if self.path.is_dir():
            with open(self.path / name, "rb") as file:
                yield file
        else:
            with zipfile.ZipFile(self.path) as archive, cast(io.BufferedIOBase, archive.open(name)) as member:
                yield io.BufferedReader(member)

    def lines(self, name: str, encoding: str = "utf-8") -> Iterator[str]:
        """The lines of a text file with their ends, without a byte order mark.

        Raises:
            DataError: a line is not in this encoding, or longer than 10 MB.
        """
        with self.open(name) as file:
            for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), start=1):
                if len(raw) > MAX_LINE:
                    raise DataError(
                        f"{self.path}: {name}, line {number}: a line must be under 10 MB. Is it a text file?"
                    )
                try:
                    line = raw.decode(encoding)
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{self.path}: {name}, line {number}: the text must be {encoding.upper()}; got the byte "
                        f"{raw[error.start]:#04x}. Save the file as {encoding.upper()}."
                    ) from None
                yield line.removeprefix("\ufeff") if number == 1 else line

    def read_delimited(
        self, name: str, separator: str, *, columns: list[str] | None = None, encoding: str = "utf-8"
    ) -> pd.DataFrame:
        """Read a table of which every cell is text; an empty cell is a missing value. Its index, `line`, counts from 0.

        Args:
            name: the file.
            separator: between cells; with a comma, quotation marks may enclose a cell.
            columns: their names, where the file has no header line.
            encoding: of the file.

        Raises:
            DataError: the file is empty or has two columns of one name, a line has too many or too few cells, a cell is
                over 131,072 characters or a quotation mark is left open.
        """
        rows = self._rows(name, separator, encoding)
        if columns is None:
            columns = self.distinct_columns_of(name, separator)
            next(rows, None)
        frames = []
        while batch := list(islice(rows, _ROWS_AT_ONCE)):
            for number, cells in batch:
                if len(cells) != len(columns):
                    raise DataError(
                        f"{self.path}: {name}, line {number}: a line must have {len(columns)} cells; got {len(cells)}. "
                        f"Correct the line."
                    )
            lines = pd.Index([number - 1 for number, _ in batch], name="line")
            frames.append(pd.DataFrame([cells for _, cells in batch], lines, columns, dtype="str"))
        if not frames:
            raise DataError(f"{self.path}: {name} must have at least one row; it is empty. Give a file with data.")
        return pd.concat(frames)

    def _rows(self, name: str, separator: str, encoding: str) -> Iterator[tuple[int, list[str]]]:
        lines = self.lines(name, encoding)
        if separator != ",":
            stripped = ((number, line.rstrip("\r\n")) for number, line in enumerate(lines, start=1))
            yield from ((number, line.split(separator)) for number, line in stripped if line)
            return
        reader = csv.reader(lines, strict=True)
        try:
            yield from ((reader.line_num, cells) for cells in reader if cells)
        except csv.Error as error:
            raise DataError(
                f"{self.path}: {name}, line {reader.line_num}: not valid CSV ({error}). Look for an unclosed quotation "
                f"mark there or above, or for a cell that is too long."
            ) from None

    def columns_of(self, name: str, separator: str = ",") -> list[str]:
        """The column names of a Parquet file, or else those in the header line of a delimited one."""
        if name.endswith(".parquet"):
            return list(self._parse_parquet(name, pq.read_schema).names)
        return [column.strip() for column in next(self._rows(name, separator, "utf-8"), (0, []))[1]]

    def distinct_columns_of(self, name: str, separator: str = ",") -> list[str]:
        """As `columns_of`.

        Raises:
            DataError: two columns have the same name, or none.
        """
        columns = self.columns_of(name, separator)
        if len(set(columns)) < len(columns):
            names = ", ".join(column or "none" for column in columns)
            raise DataError(f"{self.path}: {name}: a column name must not repeat; got {names}. Rename one.")
        return columns

    def read_parquet(self, name: str) -> pd.DataFrame:
        """Read a Parquet file.

        Raises:
            DataError: it is none.
        """
        return self._parse_parquet(name, pd.read_parquet).reset_index(drop=True)

    def _parse_parquet(self, name: str, parse: Callable[[io.BytesIO], Any]) -> Any:
        with self.open(name) as file:
            content = io.BytesIO(file.read())
        try:
            return parse(content)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path}: {name} must be a Parquet file ({error}). Get it again.") from None


def join_text(parts: Iterable[str], separator: str) -> str:
    """The parts that are not blank, white space squeezed, with a separator between."""
    return separator.join(filter(None, (" ".join(part.split()) for part in parts)))
