"""Any pair of CSV, TSV or Parquet files, with a mapping where the columns have other names.

Files named interactions and items are taken as what they say; otherwise the columns tell which is which.
"""

import difflib
from pathlib import PurePosixPath

import pandas as pd

from darec.data.sources.files import SourceFiles, SourceTables
from darec.errors import DataError

_KINDS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
_TABLES = ("interactions", "items")
_NAMES = ("user_id", "item_id", "timestamp", "rating", "split", "title")  # any other is a text column


def read_tables(files: SourceFiles, columns: dict[str, str] | None = None) -> SourceTables | None:
    """Read the pair; None if there are no such files.

    Args:
        files: where to look.
        columns: from a name of the normalised form to the name in the files, such as {"user_id": "reader"}. A key may
            begin with `interactions.` or `items.` where the two files call the same thing differently.

    Raises:
        DataError: no file, or more than one, can be the interactions or the items, or a mapped column is nowhere.
    """
    names = [name for name in files.names if name.endswith(_KINDS)]
    if not names:
        return None
    columns = columns or {}
    headers: dict[str, list[str]] = {name: files.columns_of(name, _separator(name)) for name in names}
    for ours, theirs in columns.items():
        close = difflib.get_close_matches(ours.rpartition(".")[2], _NAMES, n=1)
        if close and close[0] != ours.rpartition(".")[2]:
            raise DataError(f"A column is mapped to a name of ours; {ours!r} is none. Did you mean {close[0]!r}?")
        if not any(theirs in header for header in headers.values()):
            found = "; ".join(f"{name}: {', '.join(header)}" for name, header in headers.items())
            raise DataError(
                f"The column {theirs!r}, given for {ours}, must be in a file of {files.path}. Found {found}."
            )
    mappings = {table: _mapping(columns, table) for table in _TABLES}
    chosen = (
        _choose(files, headers, mappings["interactions"], "interactions", ("user_id", "item_id", "timestamp")),
        _choose(files, headers, mappings["items"], "items", ("item_id", "title")),
    )
    frames = [_read(files, name, mappings[table]) for name, table in zip(chosen, _TABLES, strict=True)]
    return SourceTables(frames[0], frames[1], chosen, "interactions and items as tables")


def _mapping(columns: dict[str, str], table: str) -> dict[str, str]:
    """From their names to ours in one of the two tables; a key with the table's name wins over one without."""
    mapping = {theirs: ours for ours, theirs in columns.items() if "." not in ours}
    own = {theirs: ours.split(".", 1)[1] for ours, theirs in columns.items() if ours.startswith(f"{table}.")}
    return {theirs: ours for theirs, ours in mapping.items() if ours not in own.values()} | own


def _choose(
    files: SourceFiles, headers: dict[str, list[str]], mapping: dict[str, str], table: str, needed: tuple[str, ...]
) -> str:
    named = [name for name in headers if PurePosixPath(name).name.split(".")[0] == table]
    fitting = [name for name, header in headers.items() if set(needed) <= {mapping.get(c, c) for c in header}]
    chosen = named or fitting
    if len(chosen) != 1:
        found = "; ".join(f"{name}: {', '.join(header)}" for name, header in headers.items())
        raise DataError(
            f"{files.path} must hold one {table} file with the columns {', '.join(needed)}; {len(chosen)} are there. "
            f"Found {found}. Name it {table}.csv or {table}.parquet, or map its columns "
            f"(`--column OURS=THEIRS` on the command line); a .csv has commas between its cells, a .tsv tabs."
        )
    return chosen[0]


def _read(files: SourceFiles, name: str, mapping: dict[str, str]) -> pd.DataFrame:
    table = files.read_parquet(name) if name.endswith(".parquet") else files.read_delimited(name, _separator(name))
    present = {theirs: ours for theirs, ours in mapping.items() if theirs in table.columns}
    # A column that already bears the name gives way to the one that was asked for.
    return table.drop(columns=[ours for ours in present.values() if ours in table and ours not in present]).rename(
        columns=present
    )


def _separator(name: str) -> str:
    return "\t" if ".tsv" in PurePosixPath(name).suffixes else ","
