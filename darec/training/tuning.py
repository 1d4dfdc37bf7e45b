"""The few numbers of a model that no training can set, because training knows its own targets: validation chooses them.

late gate     how far the CF model's own score is trusted
followers     how far what often comes next is
cold prior    whether text alone speaks of new items, how they then compare with all others, and how long that lasts
temperatures  how sure the softmax of the scores is of itself
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from darec.data.splits import Cases
from darec.evaluation.metrics import gains, rank_of
from darec.model.collaborative import left_pad
from darec.model.recommender import DarecModel, Encoded
from darec.model.seen import set_seen_aside

TEMPERATURES = tuple(1.25**power for power in range(-6, 16))  # 0.26 to 28: of the softmax of scores
COLD_PRIORS = tuple(0.5 * step for step in range(21))  # 0 to 10: what cold items get on top
COLD_DAYS = (7.0, 15.0, 30.0, 60.0, 120.0, float("inf"))  # in which that falls to 1 / e
FEWEST_NEW = 100  # validation targets; of fewer nothing is concluded
LATE_GATES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0)  # shares of CF's own score that validation chooses
FOLLOWED = (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 100.0, 200.0, 400.0)  # trusts in followers it chooses from


class Read(NamedTuple):
    """A batch of validation cases, and what a model read of their histories."""

    batch: Cases
    encoded: Encoded


class Choice(NamedTuple):
    """What a ranking is tried with."""

    gate: float
    followed: float
    prior: float
    days: float


@torch.no_grad()
def read_cases(model: DarecModel, cases: Cases, batch_size: int, *, collaborative: bool = True) -> list[Read]:
    """Read all histories once, for whatever is then asked of them; the model's mode is restored.

    Args:
        model: its item encodings are fresh.
        cases: of validation.
        batch_size: histories a forward pass.
        collaborative: whether the CF path takes part.
    """
    was_training = model.training
    model.eval()
    read = [
        Read(batch, model.read_last([history.tolist() for history in batch.histories], collaborative=collaborative))
        for batch in cases.batches(batch_size)
    ]
    model.train(was_training)
    return read


def validation_ndcg(model: DarecModel, cases: Cases, batch_size: int, *, collaborative: bool = True) -> float:
    """NDCG@10, seen items removed, of a model whose item encodings are fresh; its mode is restored."""
    read = read_cases(model, cases, batch_size, collaborative=collaborative)
    return float(_gains(model, read, [_chosen(model)]).mean())


def choose_late_gate(model: DarecModel, read: Sequence[Read]) -> float:
    """Set the model's late gate to the one of `LATE_GATES` that ranks best, and return that NDCG@10.

    The gate that training learns trusts the CF model as far as it knows the training targets; how far to trust it on
    others is a question for validation.
    """
    if model.collaborative is None:
        return float(_gains(model, read, [_chosen(model)]).mean())
    choices = [_chosen(model)._replace(gate=gate) for gate in LATE_GATES]
    values = _gains(model, read, choices).mean(axis=1)
    with torch.no_grad():
        model.late_gate.fill_(LATE_GATES[values.argmax()])
    return float(values.max())


def choose_trust_in_followers(model: DarecModel, read: Sequence[Read], value: float) -> float:
    """Set how far followers are trusted to the one of `FOLLOWED` that ranks best, and return that NDCG@10.

    Args:
        model: its late gate is set.
        read: validation.
        value: NDCG@10 of the model without them.
    """
    if model.followers is None:
        return value
    values = _gains(model, read, [_chosen(model)._replace(followed=trust) for trust in FOLLOWED]).mean(axis=1)
    model.followers.trust.fill_(FOLLOWED[values.argmax()])
    return float(values.max())


def place_new_items(model: DarecModel, read: Sequence[Read], new_items: np.ndarray, value: float) -> float:
    """Make new items cold, and set the cold prior and its days, to what ranks best; returns that NDCG@10.

    Where that ranks no better than the model as it is, it stays as it is.

    Args:
        model: its late gate is set, and it has no cold prior.
        read: all of validation; of `FEWEST_NEW` new targets or more, or nothing is concluded.
        new_items: [N] bool; see `Split.new_items`.
        value: NDCG@10 of the model as it is.
    """
    if sum(new_items[batch.targets].sum() for batch, _ in read) < FEWEST_NEW:
        return value
    before = model.cold.clone()
    model.cold.logical_or_(torch.from_numpy(new_items).to(model.device))
    days = COLD_DAYS if all(batch.asked is not None for batch, _ in read) else COLD_DAYS[-1:]
    tried = [_chosen(model)._replace(prior=prior, days=each) for prior in COLD_PRIORS for each in days]
    values = _gains(model, read, tried).mean(axis=1)
    best = int(values.argmax())
    if values[best] <= value:
        model.cold.copy_(before)
        return value
    model.cold_prior.fill_(tried[best].prior)
    model.cold_days.fill_(tried[best].days)
    return float(values[best])


def tune(
    model: DarecModel,
    cases: Cases,
    batch_size: int,
    new_items: np.ndarray,
    first_taken: np.ndarray | None,
) -> dict[str, Any]:
    """Set a trained model's few numbers that no training can, whatever they were; tells what they are.

    All validation users are asked, for during training only some were. The late gate comes first, then followers, new
    items and the temperatures.

    Args:
        model: trained.
        cases: all of validation.
        batch_size: histories a forward pass.
        new_items: [N] bool; see `Split.new_items`.
        first_taken: [N] int64 seconds, see `Split`; None where the data only orders.
    """
    model.cold.copy_(~model.known)
    model.first_taken.zero_()
    if first_taken is not None:
        model.first_taken.copy_(torch.from_numpy(first_taken))
    model.cold_prior.zero_()
    model.cold_days.fill_(torch.inf)
    model.newest.fill_(0 if cases.asked is None else int(cases.asked.max()))
    read = read_cases(model, cases, batch_size)
    read_off = read if model.collaborative is None else read_cases(model, cases, batch_size, collaborative=False)
    if model.followers is not None:
        model.followers.trust.zero_()
    value = choose_trust_in_followers(model, read, choose_late_gate(model, read))
    value = place_new_items(model, read, new_items, value)
    days = model.cold_days.item()
    chosen = {"cold_prior": model.cold_prior.item(), "cold_days": None if math.isinf(days) else days}
    temperatures, cf_off = calibrate(model, read_off, read)
    found = {"ndcg@10": value, "users": len(cases), **chosen, "temperatures": temperatures}
    if model.collaborative is None:
        return found
    found |= {"ndcg@10_cf_off": cf_off, "late_gate": model.late_gate.item()}
    return found if model.followers is None else found | {"followers_trust": model.followers.trust.item()}


@torch.no_grad()
def calibrate(model: DarecModel, off: Sequence[Read], on: Sequence[Read]) -> tuple[list[float], float]:
    """Set the model's temperatures, CF path off and on, to those of `TEMPERATURES` with the least cross-entropy.

    Over what was not seen, as probabilities are shown. No ranking changes. Without this the softmax of scores that were
    chosen for their ranking is far too sure of itself.
    (Guo et al., On Calibration of Modern Neural Networks, ICML 2017.)

    Args:
        model: evaluated.
        off: all of validation, read without the CF path.
        on: the same, read with it.

    Returns:
        The two temperatures, and NDCG@10 with the CF path off, which is at hand then.
    """
    model.temperatures.fill_(1.0)
    losses = np.zeros((2, len(TEMPERATURES)))
    for path, read in enumerate((off, on)):
        for batch, encoded in read:
            targets = torch.from_numpy(batch.targets).to(model.device)
            scores = unseen(model.asked(batch.asked).score_terms(encoded).total().float(), batch)
            losses[path] += [F.cross_entropy(scores / t, targets, reduction="sum").item() for t in TEMPERATURES]
    model.temperatures.copy_(torch.tensor(TEMPERATURES)[losses.argmin(axis=1)])
    return model.temperatures.tolist(), float(_gains(model, off, [_chosen(model)]).mean())


def unseen(scores: Tensor, batch: Cases) -> Tensor:
    """[B, N] scores of a batch with -inf for what each history holds, but for the target: as evaluation ranks."""
    seen = left_pad(batch.histories, max(map(len, batch.histories)))
    return set_seen_aside(scores, seen.to(scores.device), torch.from_numpy(batch.targets).to(scores.device))


def _chosen(model: DarecModel) -> Choice:
    gate = 0.0 if model.collaborative is None else model.late_gate.item()
    followed = 0.0 if model.followers is None else model.followers.trust.item()
    return Choice(gate, followed, model.cold_prior.item(), model.cold_days.item())


@torch.no_grad()
def _gains(model: DarecModel, read: Sequence[Read], choices: Sequence[Choice]) -> np.ndarray:
    """[choices, users] float64: each user's share in NDCG@10."""
    ranks = []
    with numbers_restored(model):
        model.temperatures.fill_(1.0)
        model.cold_prior.zero_()
        if model.collaborative is not None:
            model.late_gate.fill_(1.0)
        if model.followers is not None:
            model.followers.trust.fill_(1.0)
        for batch, encoded in read:
            terms, times = model.score_terms(encoded), _times(batch, model.device)
            new = {each.days: model.newness_of_cold(times, each.days) for each in choices}
            scores = (
                terms.without_late() + gate * terms.late + followed * terms.followed + prior * new[days]
                for gate, followed, prior, days in choices
            )
            ranks.append([rank_of(each.float().cpu().numpy(), batch.targets, batch.histories) for each in scores])
    return gains(np.concatenate(ranks, axis=1), 10)


def _times(batch: Cases, device: torch.device) -> Tensor | None:
    return None if batch.asked is None else torch.as_tensor(batch.asked, dtype=torch.float64, device=device)


@contextmanager
def numbers_restored(model: DarecModel) -> Iterator[None]:
    """Whatever happens inside to what this module sets, it is as before afterwards."""
    numbers = [model.cold_prior, model.temperatures]
    if model.collaborative is not None:
        numbers.append(model.late_gate)
    if model.followers is not None:
        numbers.append(model.followers.trust)
    before = [number.detach().clone() for number in numbers]
    try:
        yield
    finally:
        with torch.no_grad():
            for number, value in zip(numbers, before, strict=True):
                number.copy_(value)
