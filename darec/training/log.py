"""The training log: JSON lines in a file for later, a progress line on stderr for now."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm


class TrainingLog:
    """Appends one JSON object a line and shows the newest loss, the rate and the time left.

    Args:
        path: the log file; made when it is missing.
        keep_bytes: its length at the checkpoint that training goes on from; what was logged after it is cut off.
    """

    def __init__(self, path: Path, keep_bytes: int = 0):
        self._file = open(path, "a+b")  # noqa: SIM115 - closed by `__exit__`
        self._file.truncate(keep_bytes)
        self._bar: tqdm | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_bar()
        self._file.close()

    def write(self, **event: Any) -> None:
        """Append one event; numbers come as JSON numbers."""
        self._file.write((json.dumps(event) + "\n").encode())
        self._file.flush()

    def size(self) -> int:
        """Bytes written, to be kept in a checkpoint."""
        return self._file.seek(0, 2)

    def open_bar(self, description: str, total: int, done: int, unit: str) -> None:
        """Show progress towards `total`, of which `done` lies behind."""
        self.close_bar()
        self._bar = tqdm(desc=description, total=total, initial=done, unit=unit, dynamic_ncols=True)

    def advance(self, **shown: float) -> None:
        """One unit done; `shown` stands behind the bar."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()}, refresh=False)
            self._bar.update()

    def close_bar(self) -> None:
        """End the progress line, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
