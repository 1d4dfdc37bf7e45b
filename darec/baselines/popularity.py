"""Popularity: every user gets the items with the most training interactions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darec.data.splits import Split


class Popularity:
    """Scores an item by the log of one more than its training interactions, so that a softmax gives shares of them.

    Args:
        counts: [N] interactions.
    """

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts.astype(np.float32)

    def score(self, histories: Sequence[Sequence[int | str]]) -> np.ndarray:
        """[B, N] float32, the same for every history."""
        return np.tile(np.log1p(self.counts), (len(histories), 1))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values from which `from_state` makes the scorer again."""
        return {"counts": torch.from_numpy(self.counts)}, {}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], values: dict[str, Any]) -> "Popularity":
        """Inverse of `state`."""
        return cls(tensors["counts"].numpy())


def train_popularity(split: Split) -> Popularity:
    """Count."""
    return Popularity(split.popularity)
