"""What a data set holds: its size, its parts, its sequences, and where it came from."""

import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from darec.data.interactions import INTERACTIONS, ITEMS, NOTE, Dataset
from darec.data.sources import PreparedReport
from darec.data.splits import COLD_BELOW, Split


@dataclass(frozen=True)
class Overview:
    """A data set in numbers.

    Attributes:
        users: with at least one interaction.
        items: in the catalogue.
        interactions: rows.
        median_length: interactions of the median user.
        cold_items: items with fewer than 5 training interactions.
        top_tenth: share in 0..1 of all training interactions that the most popular tenth of the items has.
        period: first and last day (UTC, ISO 8601), where timestamps are dates.
        published_split: whether the data set brings its own split; otherwise each user's last two items are held out.
    """

    users: int
    items: int
    interactions: int
    median_length: float
    cold_items: int
    top_tenth: float
    period: tuple[str, str] | None
    published_split: bool


def summarize_dataset(dataset: Dataset, parts: Split) -> Overview:
    """Count what a data set and its split hold."""
    lengths = history_lengths(dataset)
    tenth = -(-len(dataset.catalog) // 10)
    popular = np.sort(parts.popularity)[::-1]
    times = dataset.interactions["timestamp"]
    first, last = float(times.min()), float(times.max())
    return Overview(
        users=len(lengths),
        items=len(dataset.catalog),
        interactions=len(dataset.interactions),
        median_length=float(np.median(lengths)),
        cold_items=int((parts.popularity < COLD_BELOW).sum()),
        top_tenth=float(popular[:tenth].sum() / popular.sum()),
        period=(name_day(first), name_day(last)) if dataset.has_dates else None,
        published_split="split" in dataset.interactions,
    )


def history_lengths(dataset: Dataset) -> np.ndarray:
    """[users] int64: interactions of each user, in order of first appearance."""
    return dataset.interactions["user_id"].value_counts(sort=False).to_numpy(np.int64)


def split_sizes(parts: Split) -> pd.DataFrame:
    """One row a part: its name, its users, the interactions that are learned from or asked for, what it serves."""
    rows = [
        ("Training", len(parts.train), sum(map(len, parts.train)), "What a model learns from"),
        ("Validation", len(parts.valid), len(parts.valid), "Every choice: when to stop, which settings"),
        ("Test", len(parts.test), len(parts.test), "Read once for each reported result"),
    ]
    return pd.DataFrame(rows, columns=["part", "users", "interactions", "use"])


def list_sequences(dataset: Dataset, limit: int = 100, recent: int = 6) -> pd.DataFrame:
    """The first `limit` users: user_id, length, and the titles of the `recent` newest items, newest first."""
    rows = []
    for number, (user_id, own) in enumerate(dataset.rows_by_user()):
        if number == limit:
            break
        items = dataset.item_index[own]
        titles = [dataset.catalog.titles[item] for item in items[: -recent - 1 : -1]]
        rows.append((user_id, len(items), " ← ".join([*titles, "…"] if len(items) > recent else titles)))
    return pd.DataFrame(rows, columns=["user_id", "length", "sequence"])


def read_report(folder: str | Path) -> PreparedReport | None:
    """What `prepare` noted beside the pair in `folder`; None where nothing, or something else, is there."""
    try:
        content = json.loads((Path(folder) / NOTE).read_text(encoding="utf-8"))
        return PreparedReport(**{field.name: content[field.name] for field in fields(PreparedReport)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_prepared(folder: str | Path) -> dict[str, Path]:
    """Prepared data sets in `folder` by name; none when there is no such folder. Hidden folders are skipped."""
    pairs = {path.parent for path in Path(folder).glob(f"*/{INTERACTIONS}") if (path.parent / ITEMS).is_file()}
    return {path.name: path for path in sorted(pairs) if not path.name.startswith(".")}


def name_day(seconds: float) -> str:
    """The day of a time stamp that is a date, as ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
