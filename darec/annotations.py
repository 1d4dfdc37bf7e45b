"""Tags and notes on test cases, each under a name, kept in one small SQLite file.

Where it lies: the path given, else the environment variable DAREC_NOTES, else ~/.darec/notes.sqlite. Every call opens
the file anew, so threads and processes may share it.
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from darec.errors import DarecError

MAX_NAME, MAX_TAG, MAX_TEXT = 80, 40, 10_000  # characters
_SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (
    data_fingerprint TEXT NOT NULL,
    user_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    author TEXT NOT NULL,
    run_name TEXT NOT NULL,
    target_item_id TEXT NOT NULL,
    rank INTEGER NOT NULL,
    tags TEXT NOT NULL,
    note TEXT NOT NULL,
    written_at TEXT NOT NULL,
    PRIMARY KEY (data_fingerprint, user_id, run_id, author)
)
"""
COLUMNS = ("author", "run_name", "run_id", "user_id", "target_item_id", "rank", "tags", "note", "written_at")


class NotesError(DarecError):
    """A note breaks a rule, or the notes file cannot be used."""


@dataclass(frozen=True)
class NotedCase:
    """What a note is about: one user's case, as one run answered it.

    Attributes:
        data_fingerprint: of the data set.
        user_id: whose case.
        run_id: of the run; see `identify_run`.
        run_name: what people call the run.
        target_item_id: the item that was right.
        rank: the rank that the run gave it.
    """

    data_fingerprint: str
    user_id: str
    run_id: str
    run_name: str
    target_item_id: str
    rank: int


def notes_path(given: str | Path | None = None) -> Path:
    """Where notes are kept."""
    return Path(given or os.environ.get("DAREC_NOTES") or Path.home() / ".darec" / "notes.sqlite")


class Notes:
    """The notes file. It is made when the first note is written."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def write(self, case: NotedCase, author: str, tags: Sequence[str] = (), note: str = "") -> None:
        """Keep one person's tags and note on a case, in the place of what she wrote on it before; nothing deletes it.

        Raises:
            NotesError: a blank or overlong name, an overlong tag or note, or a file that cannot be written.
        """
        author, note = author.strip(), note.strip()
        kept = list(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
        if not author or len(author) > MAX_NAME:
            raise NotesError(f"A note needs a name of 1 to {MAX_NAME} characters; got {len(author)}. Write yours.")
        if long := [tag for tag in kept if len(tag) > MAX_TAG]:
            raise NotesError(
                f"A tag has at most {MAX_TAG} characters; {long[0][:20]!r}... has {len(long[0])}. Shorten it."
            )
        if len(note) > MAX_TEXT:
            raise NotesError(f"A note has at most {MAX_TEXT:,} characters; this has {len(note):,}. Shorten it.")
        key = (case.data_fingerprint, case.user_id, case.run_id, author)
        row = (*key, case.run_name, case.target_item_id, case.rank, json.dumps(kept, ensure_ascii=False), note)
        with self._open(write=True) as connection:
            if kept or note:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, now))
            else:
                connection.execute(
                    "DELETE FROM notes WHERE data_fingerprint = ? AND user_id = ? AND run_id = ? AND author = ?", key
                )

    def read(self, data_fingerprint: str, user_id: str | None = None) -> pd.DataFrame:
        """The notes on a data set's cases, or on one user's; the newest first.

        Returns:
            author, run_name, run_id, user_id, target_item_id (str), rank (int), tags (list of str), note (str),
            written_at (str, ISO 8601, UTC).

        Raises:
            NotesError: the file is no notes file, or cannot be read.
        """
        query = f"SELECT {', '.join(COLUMNS)} FROM notes WHERE data_fingerprint = ?"
        values = [data_fingerprint]
        if user_id is not None:
            query, values = f"{query} AND user_id = ?", [data_fingerprint, user_id]
        rows: list[tuple] = []
        if self.path.exists():
            with self._open() as connection:
                rows = connection.execute(f"{query} ORDER BY written_at DESC, rowid DESC", values).fetchall()
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        return table.assign(tags=[json.loads(tags) for tags in table["tags"]])

    @contextmanager
    def _open(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are kept when the block ends without an error."""
        connection = None
        try:
            if write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=10)
            with connection:
                connection.execute(_SCHEMA)
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise NotesError(
                f"The notes file {self.path} cannot be used ({error}). "
                "Name another by --notes FILE or the environment variable DAREC_NOTES."
            ) from None
        finally:
            if connection is not None:
                connection.close()
