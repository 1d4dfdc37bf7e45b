"""How fast each part learns, and how that changes over a training."""

import math
from typing import Any

from torch import Tensor

from darec.config import Settings
from darec.model.recommender import DarecModel

_FAST = ("item_bias", "late_gate", "skip.decay")  # parameters of which each moves scores by itself


def parameter_groups(model: DarecModel, settings: Settings) -> list[dict[str, Any]]:
    """What is trained, by learning rate: the CF model slowly; fast what moves a score or a weight all by itself."""
    groups: dict[str, list[Tensor]] = {"maps": [], "skip": [], "vectors": [], "scalars": [], "collaborative": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("collaborative."):
            groups["collaborative"].append(parameter)
        elif name in _FAST or name.startswith("bank.static_logits."):
            groups["scalars"].append(parameter)
        elif name.startswith("skip."):
            groups["skip"].append(parameter)
        else:
            groups["maps" if parameter.dim() > 1 and name != "soft_tokens" else "vectors"].append(parameter)
    training = settings.training
    rate = training.learning_rate
    return [
        {"params": groups["maps"], "lr": rate, "weight_decay": training.weight_decay},
        {"params": groups["skip"], "lr": settings.short_way.learning_rate, "weight_decay": training.weight_decay},
        {"params": groups["vectors"], "lr": rate, "weight_decay": 0.0},
        {"params": groups["scalars"], "lr": 10 * rate, "weight_decay": 0.0},
        {"params": groups["collaborative"], "lr": training.collaborative_learning_rate, "weight_decay": 0.0},
    ]


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """Share of the learning rate at a step: a linear warm-up to 1, then half a cosine to 0."""
    warmup = max(1, round(steps * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))
