"""Training of a model of item identities: one random window a user and epoch, early stopping on validation.

Two things keep a small model from learning few users by heart. Each window is thinned: a share of its items, drawn
anew for each window between none and half, is left out, so that the model meets other neighbours in every epoch. And
what is validated and kept is an exponential moving average of the weights over about the last hundred steps.
"""

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from darec.config import CollaborativeSettings
from darec.data.splits import Cases, Split
from darec.data.windows import draw_run
from darec.errors import DataError
from darec.evaluation.metrics import ndcg, rank_of
from darec.model.collaborative import NextItemModel, left_pad

_EVALUATION_BATCH = 256  # histories
_MAX_THINNING = 0.5  # of a window's items
_AVERAGING = 0.99  # weight of the past at each step


def train_collaborative(
    model: NextItemModel,
    split: Split,
    settings: CollaborativeSettings,
    *,
    seed: int,
    device: str,
    on_epoch: Callable[[dict[str, Any]], None],
) -> float:
    """Train `model` in place, stop when validation no longer improves, and leave it in its best state.

    Args:
        model: SASRec, GRU4Rec or another model of item identities.
        split: trains on `train`, selects on all users of `valid`; `test` is not looked at.
        settings: window length, batch size, rates, epochs and patience.
        seed: of the order of users, the windows and the dropout.
        device: torch name.
        on_epoch: receives stage, epoch (from 1), loss, ndcg@10 (validation, seen items removed) and seconds.

    Returns:
        The best validation NDCG@10, in 0..1, seen items removed.

    Raises:
        DataError: no user has two training items, or there are no validation cases.
    """
    histories = [history for history in split.train if len(history) > 1]
    if not histories or not len(split.valid):
        raise DataError(
            f"Training needs users with at least two training items and validation cases; got {len(histories)} and "
            f"{len(split.valid)}. Bring users with longer histories."
        )
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98)
    )
    averaged = copy.deepcopy(model)
    steps, best, best_state, epochs_since = 0, -1.0, model.state_dict(), 0
    for epoch in range(1, settings.epochs + 1):
        start = time.perf_counter()
        model.train()
        losses = []
        order = random.permutation(len(histories))
        for first in range(0, len(order), settings.batch_size):
            users = order[first : first + settings.batch_size]
            windows = [_draw_window(histories[user], settings.max_items + 1, random) for user in users]
            loss = model.loss(left_pad(windows, settings.max_items + 1).to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            _average(averaged, model, steps)
            losses.append(loss.item())
        value = validation_ndcg(averaged, split.valid, settings.max_items, device)
        on_epoch(
            {
                "stage": "collaborative",
                "epoch": epoch,
                "loss": float(np.mean(losses)),
                "ndcg@10": value,
                "seconds": time.perf_counter() - start,
            }
        )
        epochs_since += 1
        if value > best:
            best, epochs_since = value, 0
            best_state = {name: tensor.detach().clone() for name, tensor in averaged.state_dict().items()}
        if epochs_since >= settings.patience:
            break
    model.load_state_dict(best_state)
    model.eval()
    return best


@torch.inference_mode()
def validation_ndcg(model: NextItemModel, cases: Cases, max_items: int, device: str) -> float:
    """NDCG@10 of all cases, seen items removed; `model` is left in evaluation mode."""
    model.eval()
    ranks = []
    by_length = np.argsort([len(history) for history in cases.histories], kind="stable")  # so little is padded
    for first in range(0, len(cases), _EVALUATION_BATCH):
        users = by_length[first : first + _EVALUATION_BATCH]
        histories = [cases.histories[user] for user in users]
        scores = model.score(model(left_pad(histories, max_items).to(device))[:, -1])
        ranks.append(rank_of(scores.float().cpu().numpy(), cases.targets[users], histories))
    return ndcg(np.concatenate(ranks), 10)


def _draw_window(history: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    """Up to `length` items that follow each other, then thinned to two or more."""
    window = draw_run(history, length, random)
    kept = window[random.random(len(window)) >= random.uniform(0, _MAX_THINNING)]
    return kept if len(kept) > 1 else window


@torch.no_grad()
def _average(averaged: NextItemModel, model: NextItemModel, steps: int) -> None:
    past = min(_AVERAGING, (1 + steps) / (10 + steps))  # the first steps are forgotten sooner
    for mean, parameter in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.lerp_(parameter, 1 - past)
