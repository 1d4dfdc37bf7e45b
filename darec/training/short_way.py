"""The short way's training by itself, before the language model learns to add to it.

Where both learn at once, the short way leans on a language model that knows the training targets, and is worth less on
others. By itself it learns in a few epochs what it can; after that it rests.
"""

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from darec.config import ShortWaySettings
from darec.data.splits import Cases, Split
from darec.data.windows import draw_run
from darec.evaluation.metrics import ndcg, rank_of
from darec.model.collaborative import left_pad
from darec.model.recommender import DarecModel
from darec.training.losses import StepLosses
from darec.training.optimizer import schedule

_EVALUATION_BATCH = 128  # histories
# How much faster than maps those learn that move a score by themselves: a word's share in it, an item's bias.
_SHARES, _SCALARS = 3, 30


def train_short_way(
    losses: StepLosses, split: Split, *, seed: int, on_epoch: Callable[[dict[str, Any]], None]
) -> float:
    """Train the short way and the item biases in place, and leave them as they were after their best epoch.

    Args:
        losses: of a model with a short way, whose item encodings are fresh.
        split: trains on `train`, selects on all users of `valid`; `test` is not looked at.
        seed: of the order of users, the runs of items and what is dropped.
        on_epoch: receives stage, epoch (from 1), loss, ndcg@10 (validation, seen items removed) and seconds.

    Returns:
        The best validation NDCG@10 of the two by themselves, in 0..1, seen items removed.
    """
    model = losses.model
    settings, length = model.settings.short_way, model.settings.collaborative.max_items
    histories = [history for history in split.train if len(history) > 1]
    random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    batches = -(-len(histories) // settings.batch_size)
    steps, warmup = batches * settings.epochs, model.settings.training.warmup_share
    trained = [*model.skip.requires_grad_(True).parameters(), model.item_bias]
    optimizer = torch.optim.AdamW(_parameter_groups(model, settings))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps, warmup))
    best, best_weights = -1.0, copy.deepcopy(trained)
    for epoch in range(1, settings.epochs + 1):
        start, values = time.perf_counter(), []
        for users in np.array_split(random.permutation(len(histories)), batches):
            runs = [draw_run(histories[user], length + 1, random) for user in users]
            loss = losses.of_short_way(left_pad(runs, length + 1).to(model.device), generator)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, model.settings.training.gradient_clip)
            optimizer.step()
            scheduler.step()
            values.append(loss.item())
        value = validation_ndcg(model, split.valid)
        if value > best:
            best, best_weights = value, copy.deepcopy(trained)
        seconds = time.perf_counter() - start
        on_epoch(
            {"stage": "short way", "epoch": epoch, "loss": float(np.mean(values)), "ndcg@10": value, "seconds": seconds}
        )
    with torch.no_grad():
        for parameter, weight in zip(trained, best_weights, strict=True):
            parameter.copy_(weight)
    optimizer.zero_grad()  # the last gradients must not enter the first joint step
    model.skip.requires_grad_(False)
    return best


@torch.no_grad()
def validation_ndcg(model: DarecModel, cases: Cases) -> float:
    """NDCG@10 of the short way and the biases by themselves, seen items removed."""
    ranks, everything = [], torch.ones(len(model.known), device=model.device)
    for batch in cases.batches(_EVALUATION_BATCH):
        items = left_pad(batch.histories, model.settings.collaborative.max_items).to(model.device)
        rows = torch.arange(len(items), device=model.device)
        scores = model.score_past(items, rows, torch.full_like(rows, items.shape[1] - 1), everything)
        ranks.append(rank_of(scores.float().cpu().numpy(), batch.targets, batch.histories))
    return ndcg(np.concatenate(ranks), 10)


def _parameter_groups(model: DarecModel, settings: ShortWaySettings) -> list[dict[str, Any]]:
    skip, rate = model.skip, settings.learning_rate
    return [
        {"params": [skip.down, skip.up], "lr": rate, "weight_decay": settings.weight_decay},
        {"params": [skip.shares], "lr": _SHARES * rate, "weight_decay": settings.weight_decay},
        {"params": [skip.decay, model.item_bias], "lr": _SCALARS * rate, "weight_decay": 0.0},
    ]
