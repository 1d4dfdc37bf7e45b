"""Text neighbours: items whose text resembles the texts of the history. It alone reads titles nobody has seen."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from darec.baselines.itemknn import DECAYS, recency_weights
from darec.data.catalog import Catalog
from darec.data.splits import Split
from darec.evaluation.metrics import ndcg
from darec.evaluation.protocol import rank_cases
from darec.model.collaborative import left_pad
from darec.model.text_features import encode_texts
from darec.model.whitening import whitening

_MAX_ITEMS = 200  # most recent entries of a history that count


class TextNeighbours:
    """Scores an item by the cosine of its text features with the recency-weighted sum of those of the history.

    Args:
        features: [N, F] float32, each row of L2 norm 1 after `centre` was taken off and `map` applied.
        centre: [F] float32, taken off the features of every text.
        map: [F, F] float32, applied to them then.
        decay: weight of an entry relative to the one after it, in 0..1; see `recency_weights`.
        backbone: name or folder of the encoder, for titles that the catalogue lacks.
        device: torch name the encoder runs on.
    """

    def __init__(
        self, features: Tensor, centre: Tensor, map: Tensor, decay: float, backbone: str, device: str = "cpu"
    ) -> None:
        self.features, self.centre, self.map, self.decay = features, centre, map, decay
        self.backbone, self.device = backbone, device

    def score(self, histories: Sequence[Sequence[int | str]]) -> np.ndarray:
        """[B, N] float32 cosines in -1..1; 0 for an empty history.

        Raises:
            BackboneError: a history holds a title and the backbone cannot be loaded.
        """
        titles = sorted({entry for history in histories for entry in history if isinstance(entry, str)})
        features = self.features
        if titles:
            new = encode_texts(titles, self.backbone, device=self.device)
            features = torch.cat([features, F.normalize((new - self.centre) @ self.map, dim=-1)])
        index = {title: len(self.features) + i for i, title in enumerate(titles)}
        items = left_pad(
            [[index[i] if isinstance(i, str) else i for i in history] for history in histories], _MAX_ITEMS
        )
        weights = recency_weights(items, self.decay)
        profiles = (weights[:, None] @ features[items.clamp(min=0)])[:, 0]  # [B, F]
        return (F.normalize(profiles, dim=-1) @ self.features.T).numpy()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values from which, with a `backbone` among them, `from_state` makes the scorer again."""
        return {"features": self.features, "centre": self.centre, "map": self.map}, {"decay": self.decay}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], values: dict[str, Any]) -> "TextNeighbours":
        """Inverse of `state`."""
        return cls(tensors["features"], tensors["centre"], tensors["map"], values["decay"], values["backbone"])


def train_text_neighbours(
    split: Split, catalog: Catalog, *, backbone: str, device: str, on_epoch: Callable[[dict[str, Any]], None]
) -> TextNeighbours:
    """Choose decay, and features as they come, centred or whitened, on validation; each choice is reported."""
    features = encode_texts(catalog.full_texts, backbone, device=device)
    best, best_value = None, -1.0
    same = torch.eye(features.shape[1])
    placements = {
        "as they come": (torch.zeros(features.shape[1]), same),
        "centred": (features.mean(0), same),
        "whitened": whitening(features),
    }
    for name, (centre, map) in placements.items():
        placed = F.normalize((features - centre) @ map, dim=-1)
        for decay in DECAYS:
            start = time.perf_counter()
            scorer = TextNeighbours(placed, centre, map, decay, backbone, device)
            value = ndcg(rank_cases(scorer, split, "valid")["rank"].to_numpy(), 10)
            setting = {"features": name, "decay": decay}
            seconds = time.perf_counter() - start
            on_epoch({"stage": "grid", "setting": setting, "ndcg@10": value, "seconds": seconds})
            if value > best_value:
                best, best_value = scorer, value
    assert best is not None
    return best
