"""How long work tells how far it is."""

from collections.abc import Callable

OnProgress = Callable[[str, int, int | None], None]  # of a download: the file's name, bytes so far, in all if known
OnStage = Callable[[int, int, str], None]  # of stages: the number of the one that begins, from 1; of how many; in words


def say_nothing(number: int, of: int, what: str) -> None:
    """An `OnStage` where nobody listens."""
