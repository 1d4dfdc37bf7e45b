"""A lock on a file that the system gives back when its process ends, however that comes about."""

import sys
from typing import IO


def lock(file: IO[bytes]) -> None:
    """Take the lock of an open file until it is closed.

    Raises:
        OSError: another process has it, or another opening of the same file.
    """
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
