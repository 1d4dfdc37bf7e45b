"""The normalised form: who interacted with what, in which order.

interactions.parquet    user_id, item_id, timestamp, optional rating, optional split
items.parquet           item_id, title, any further text columns
prepared.json           where they come from and what they may be used for, if it was noted
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from darec.data.catalog import Catalog
from darec.errors import DataError
from darec.runs import sha256_of

INTERACTIONS = "interactions.parquet"
ITEMS = "items.parquet"
NOTE = "prepared.json"
MAX_ID = 256  # characters
MAX_TITLE = 2_000  # characters
MAX_TEXT = 100_000  # characters, any other text of an item
DATES = (100_000_000, 4_102_444_800)  # seconds since 1970 that are dates, of 1973 to 2099; other numbers only order
_SPLIT_LABELS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, eq=False)
class Dataset:
    """A catalogue and the interactions with it.

    Attributes:
        catalog: the N items.
        interactions: user_id (str), item_id (str), timestamp (int64, or float64 where there are fractions; seconds, or
            a position), optional rating (float64), optional split (`train`, `val` or `test`); rows of one user stand
            together, in time order, ties in file order.
        note: the text of prepared.json, which says where the data come from and what they may be used for; None where
            nobody noted it.
    """

    catalog: Catalog
    interactions: pd.DataFrame
    note: str | None = None

    @classmethod
    def load(cls, folder: str | Path) -> "Dataset":
        """Read and check the normalised pair in `folder`, and the note beside it.

        Raises:
            DataError: a file is missing or breaks a rule of the normalised form.
        """
        folder = Path(folder)
        interactions, items = (_read_parquet(folder / name) for name in (INTERACTIONS, ITEMS))
        note = folder / NOTE
        text = note.read_text(encoding="utf-8", errors="replace") if note.is_file() else None
        return replace(validated(interactions, items, source=str(folder)), note=text)

    def save(self, folder: str | Path) -> None:
        """Write the normalised pair into an existing folder, and the note where there is one."""
        self.interactions.to_parquet(Path(folder) / INTERACTIONS, index=False)
        self.catalog.items.to_parquet(Path(folder) / ITEMS, index=False)
        if self.note is not None:
            (Path(folder) / NOTE).write_text(self.note, encoding="utf-8")

    @cached_property
    def item_index(self) -> np.ndarray:
        """[rows of interactions] int64: each interaction's item_index."""
        return (
            self.interactions["item_id"].map({id_: i for i, id_ in enumerate(self.catalog.item_ids)}).to_numpy(np.int64)
        )

    @cached_property
    def has_dates(self) -> bool:
        """Whether time stamps are dates, in seconds since 1970, and do more than order."""
        times = self.interactions["timestamp"]
        return bool(DATES[0] <= times.min() and times.max() <= DATES[1])

    def rows_by_user(self) -> Iterator[tuple[str, slice]]:
        """Each user_id with the rows of `interactions` that are hers, users in order of first appearance."""
        user_ids = self.interactions["user_id"].to_numpy(dtype=object)
        starts = [0, *(np.flatnonzero(user_ids[1:] != user_ids[:-1]) + 1).tolist()]
        for start, end in zip(starts, [*starts[1:], len(user_ids)], strict=True):
            yield user_ids[start], slice(start, end)


def fingerprint(folder: str | Path) -> str:
    """A hash of the normalised pair's bytes, to tell whether two runs saw the same data."""
    sums = sha256_of(Path(folder) / INTERACTIONS) + sha256_of(Path(folder) / ITEMS)
    return hashlib.sha256(sums.encode()).hexdigest()[:16]


def _read_parquet(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path.parent} must hold {path.name}. Make it with `python -m darec data prepare`.")
    try:
        return pd.read_parquet(path).reset_index(drop=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} must be a Parquet file ({error}). Prepare the data again.") from None


def validated(
    interactions: pd.DataFrame, items: pd.DataFrame, source: str, *, files: tuple[str, str] = (INTERACTIONS, ITEMS)
) -> Dataset:
    """Check both tables, bring them into the normalised form and order.

    Ids become text without blanks around them. A blank title becomes the last step of the item's category path, or
    else `Item <item_id>`, so that every item has words; the column title_missing then marks it. Timestamps are numbers,
    or ISO 8601 dates and times (UTC where no zone is given) and then become seconds since 1970. The split label `valid`
    or `validation` becomes `val`. Columns of `interactions` that the normalised form does not name are left out.

    Args:
        interactions: at least user_id, item_id, timestamp. Its index counts from 0 as the file does: its rows, or its
            lines where the index is named `line`.
        items: at least item_id, title. Its index likewise.
        source: what to call the data in an error.
        files: what to call the two tables in an error.

    Raises:
        DataError: naming the file, the row (from 1, header not counted) or line, and the remedy.
    """
    interactions_at, items_at = (f"{source}: {name}" for name in files)
    items = _checked_items(items, items_at)
    interactions = _checked_interactions(interactions, interactions_at)
    unknown = ~interactions["item_id"].isin(items["item_id"])
    remedy = f"Add it to {files[1]}, or leave the row out."
    _refuse(interactions_at, interactions["item_id"], unknown, "every item_id must be among the items", remedy)
    order = pd.factorize(interactions["user_id"])[0]
    interactions = interactions.iloc[np.lexsort((interactions["timestamp"].to_numpy(), order))]
    return Dataset(Catalog(items.reset_index(drop=True)), interactions.reset_index(drop=True))


def _checked_items(items: pd.DataFrame, where: str) -> pd.DataFrame:
    _require_columns(items, ("item_id", "title"), where)
    items = items.assign(item_id=_checked_ids(items["item_id"], where))
    _refuse(where, items["item_id"], items["item_id"].duplicated(), "an item_id must not repeat", "Keep one row of it.")
    for name in items.columns.drop("item_id"):
        if name == "title" or not pd.api.types.is_numeric_dtype(items[name]):
            items[name] = _as_text(items[name], where)
            limit = MAX_TITLE if name == "title" else MAX_TEXT
            too_long = items[name].str.len() > limit
            rule = f"{name} must have at most {limit:,} characters"
            _refuse(where, items[name], too_long, rule, "Shorten it; an unclosed quotation mark can be the cause.")
    items["title"] = items["title"].str.split().str.join(" ").astype(object)
    missing = items["title"] == ""
    if missing.any():
        items["title_missing"] = missing
        items.loc[missing, "title"] = [_stand_in_title(row) for row in items[missing].to_dict("records")]
    return items


def _stand_in_title(row: dict[Any, Any]) -> str:
    path = str(row.get("category", "") or "").split(" | ")[0]
    return path.split(" > ")[-1].strip() or f"Item {row['item_id']}"


def _checked_interactions(interactions: pd.DataFrame, where: str) -> pd.DataFrame:
    _require_columns(interactions, ("user_id", "item_id", "timestamp"), where)
    columns = {
        "user_id": _checked_ids(interactions["user_id"], where),
        "item_id": _checked_ids(interactions["item_id"], where),
        "timestamp": _checked_timestamps(interactions["timestamp"], where),
    }
    if "rating" in interactions:
        rating = interactions["rating"]
        columns["rating"] = pd.to_numeric(rating, errors="coerce").astype(np.float64)
        wrong = columns["rating"].isna() & (_as_text(rating, where) != "")
        _refuse(where, rating, wrong, "rating must be a number or nothing", "Correct it, or leave the column out.")
    if "split" in interactions:
        labels = _as_text(interactions["split"], where)
        columns["split"] = labels.str.lower().map(_SPLIT_LABELS).astype(object)
        rule, remedy = (
            "split must be train, val or test",
            "Correct it, or leave the column out to hold the last two out.",
        )
        _refuse(where, labels, columns["split"].isna(), rule, remedy)
    return pd.DataFrame(columns)


def _require_columns(table: pd.DataFrame, needed: tuple[str, ...], where: str) -> None:
    lacking = [name for name in needed if name not in table.columns]
    if lacking:
        found = ", ".join(map(str, table.columns[:20])) or "none"
        raise DataError(
            f"{where} must have the columns {', '.join(needed)}; it lacks {', '.join(lacking)} (found: {found}). "
            f"Rename a column, or say which one is meant (`--column OURS=THEIRS` on the command line)."
        )
    if not len(table):
        raise DataError(f"{where} must have at least one row; it is empty. Give a file with data.")


def _checked_ids(column: pd.Series, where: str) -> pd.Series:
    text = _as_text(column, where)
    _refuse(where, column, text == "", f"{column.name} must not be missing", "Fill it in, or leave the row out.")
    too_long = text.str.len() > MAX_ID
    _refuse(where, text, too_long, f"{column.name} must have at most {MAX_ID} characters", "Give a shorter id.")
    return text


def _checked_timestamps(column: pd.Series, where: str) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(column):
        column = column.map(lambda time: "" if pd.isna(time) else time.isoformat())
    if not pd.api.types.is_numeric_dtype(column):
        column = _as_text(column, where)
    blank = column.isna() | (column.astype(object) == "")
    _refuse(where, column, blank, "timestamp must not be missing", "Fill it in, or leave the row out.")
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    if numbers.isna().any():
        times = pd.to_datetime(column.astype(str), format="ISO8601", utc=True, errors="coerce")
        if times.notna().sum() >= numbers.notna().sum():
            numbers = (times - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    rule = "timestamp must be a number of seconds or an ISO 8601 time such as 2024-05-31T12:00:00, one kind in all rows"
    _refuse(where, column, numbers.isna() | np.isinf(numbers), rule, "Correct it, or leave the row out.")
    whole = (numbers % 1 == 0).all() and (numbers.abs() < 2**53).all()
    return numbers.astype(np.int64) if whole else numbers


def _as_text(column: pd.Series, where: str) -> pd.Series:
    """The same column as str objects without blanks around them; a missing value becomes the empty text."""
    if pd.api.types.is_integer_dtype(column) and not column.hasnans:
        return column.astype(str).astype(object)
    if isinstance(column.dtype, pd.StringDtype):
        return column.fillna("").str.strip().astype(object)
    undecoded = column.map(lambda value: isinstance(value, bytes)).astype(bool)
    _refuse(where, column, undecoded, f"{column.name} must hold text, not bytes", "Decode it, for example as UTF-8.")
    return pd.Series([_value_as_text(value) for value in column], column.index, object, column.name)


def _value_as_text(value: Any) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return "|".join(filter(None, map(_value_as_text, value)))
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():  # what pandas makes of whole numbers beside a missing one
        return str(int(value))
    return str(value).strip()


def _refuse(where: str, column: pd.Series, wrong: pd.Series, rule: str, remedy: str) -> None:
    """Raise for the first row where `wrong` holds."""
    if not wrong.any():
        return
    position = int(np.argmax(wrong.to_numpy()))
    place = f"{column.index.name or 'row'} {column.index[position] + 1}"
    value = repr(column.iloc[position])
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    others = f" ({int(wrong.sum()) - 1:,} more rows are wrong in this way)" if wrong.sum() > 1 else ""
    raise DataError(f"{where}, {place}: {rule}; got {shown}{others}. {remedy}")
