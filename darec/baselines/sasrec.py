"""SASRec with full cross-entropy on its own: the collaborative model DARec contains, without the language model."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darec.config import CollaborativeSettings
from darec.data.splits import Split
from darec.model.collaborative import NextItemModel, SASRec, left_pad
from darec.training.collaborative import train_collaborative


class NextItemScorer:
    """Scores with a model of item identities.

    Args:
        model: trained; put into evaluation mode.
        settings: those it was trained with.
    """

    model_class: Callable[..., NextItemModel] = SASRec

    def __init__(self, model: NextItemModel, settings: CollaborativeSettings) -> None:
        self.model, self.settings = model.eval(), settings

    @torch.inference_mode()
    def score(self, histories: Sequence[Sequence[int | str]]) -> np.ndarray:
        """[B, N] float32 logits; titles are skipped; -inf for items that the model knows nothing of."""
        items = left_pad(
            [[i for i in history if not isinstance(i, str)] for history in histories], self.settings.max_items
        )
        scores = self.model.score(self.model(items.to(self.model.known.device))[:, -1])
        if self.model.text_features is None:
            scores = scores.masked_fill(~self.model.known, -torch.inf)
        return scores.float().cpu().numpy()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values from which `from_state` makes the scorer again."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        return tensors, {"settings": self.settings.model_dump()}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], values: dict[str, Any]) -> "NextItemScorer":
        """Inverse of `state`, on the CPU."""
        settings = CollaborativeSettings.model_validate(values["settings"])
        known = tensors["known"]
        model = cls.model_class(len(known), settings, tensors.get("text_features"), known)
        model.load_state_dict(tensors)
        return cls(model, settings)


def train_sasrec(
    split: Split,
    settings: CollaborativeSettings,
    *,
    seed: int,
    device: str,
    on_epoch: Callable[[dict[str, Any]], None],
    text_features: Tensor | None = None,
) -> NextItemScorer:
    """Draw a model by the seed and train it; with `text_features` [N, F] it reads them beside the identities."""
    torch.manual_seed(seed)
    model = SASRec(split.num_items, settings, text_features, torch.from_numpy(split.popularity > 0))
    train_collaborative(model, split, settings, seed=seed, device=device, on_epoch=on_epoch)
    return NextItemScorer(model, settings)
