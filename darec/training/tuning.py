"""The few numbers of a model that no training can set, because training knows its own targets: validation chooses them.

late gate     how far the CF model's own score is trusted
cold prior    how cold items, for which text alone speaks, compare with all others
temperatures  how sure the softmax of the scores is of itself
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from darec.data.splits import Cases
from darec.evaluation.metrics import ndcg, rank_of
from darec.model.recommender import DarecModel

TEMPERATURES = tuple(1.25**power for power in range(-6, 16))  # 0.26 to 28: of the softmax of scores
COLD_PRIORS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)  # what cold items get on top, from which validation chooses
LATE_GATES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0)  # shares of CF's own score that validation chooses


def validation_ndcg(model: DarecModel, cases: Cases, batch_size: int, *, collaborative: bool = True) -> float:
    """NDCG@10, seen items removed, of a model whose item encodings are fresh; its mode is restored."""
    gate = model.late_gate.item() if model.collaborative is not None else 0.0
    return _ndcg_by_gate(model, cases, batch_size, (gate,), collaborative)[gate]


def choose_late_gate(model: DarecModel, cases: Cases, batch_size: int) -> float:
    """Set the model's late gate to the one of `LATE_GATES` that ranks best, and return that NDCG@10.

    The gate that training learns trusts the CF model as far as it knows the training targets; how far to trust it on
    others is a question for validation.
    """
    if model.collaborative is None:
        return validation_ndcg(model, cases, batch_size)
    values = _ndcg_by_gate(model, cases, batch_size, LATE_GATES)
    best = max(values, key=lambda gate: values[gate])
    with torch.no_grad():
        model.late_gate.fill_(best)
    return values[best]


def tune(model: DarecModel, cases: Cases, batch_size: int) -> dict[str, Any]:
    """Set a trained model's few numbers that no training can: late gate, cold prior, temperatures; tells what they are.

    All validation users are asked, for during training only some were.
    """
    model.cold_prior.zero_()
    chosen: dict[str, Any] = {}
    if model.collaborative is not None:
        choose_late_gate(model, cases, batch_size)
        chosen["late_gate"] = model.late_gate.item()
    value = choose_cold_prior(model, cases, batch_size)
    chosen |= {"cold_prior": model.cold_prior.item(), "temperatures": calibrate(model, cases, batch_size)}
    return {"ndcg@10": value, "users": len(cases), **chosen}


@torch.no_grad()
def choose_cold_prior(model: DarecModel, cases: Cases, batch_size: int) -> float:
    """Set what cold items get on top of their scores to the one of `COLD_PRIORS` that ranks best; returns that NDCG@10.

    Text alone speaks for a cold item, CF besides for all others; training, where no cold item is ever a target, cannot
    tell how the two compare.
    """
    if model.collaborative is None:
        return validation_ndcg(model, cases, batch_size)
    model.cold_prior.zero_()
    ranks: dict[float, list[np.ndarray]] = {prior: [] for prior in COLD_PRIORS}
    for batch in cases.batches(batch_size):
        scores = model.score([history.tolist() for history in batch.histories])
        for prior in COLD_PRIORS:
            moved = scores + prior * model.cold.cpu().numpy()
            ranks[prior].append(rank_of(moved, batch.targets, batch.histories))
    values = {prior: ndcg(np.concatenate(parts), 10) for prior, parts in ranks.items()}
    best = max(values, key=lambda prior: values[prior])
    model.cold_prior.fill_(best)
    return values[best]


@torch.no_grad()
def calibrate(model: DarecModel, cases: Cases, batch_size: int) -> list[float]:
    """Set the model's temperatures, CF path off and on, to those of `TEMPERATURES` with the least cross-entropy.

    No ranking changes. Without this the softmax of scores that were chosen for their ranking is far too sure of itself.
    (Guo et al., On Calibration of Modern Neural Networks, ICML 2017.)
    """
    model.temperatures.fill_(1.0)
    losses = np.zeros((2, len(TEMPERATURES)))
    for batch in cases.batches(batch_size):
        targets = torch.from_numpy(batch.targets).to(model.device)
        for on in (False, True):
            terms = model.last_terms([history.tolist() for history in batch.histories], collaborative=on)
            scores = terms.total().float()
            losses[int(on)] += [F.cross_entropy(scores / t, targets, reduction="sum").item() for t in TEMPERATURES]
    model.temperatures.copy_(torch.tensor(TEMPERATURES)[losses.argmin(axis=1)])
    return model.temperatures.tolist()


def _ndcg_by_gate(
    model: DarecModel, cases: Cases, batch_size: int, gates: tuple[float, ...], collaborative: bool = True
) -> dict[float, float]:
    """NDCG@10 under each of these late gates, from one reading of every history."""
    was_training = model.training
    model.eval()
    ranks: dict[float, list[np.ndarray]] = {gate: [] for gate in gates}
    with restored_gate(model):
        if model.collaborative is not None:
            torch.nn.init.ones_(model.late_gate)
        for batch in cases.batches(batch_size):
            terms = model.last_terms([history.tolist() for history in batch.histories], collaborative=collaborative)
            for gate in gates:
                scores = (terms.without_late() + gate * terms.late).float().cpu().numpy()
                ranks[gate].append(rank_of(scores, batch.targets, batch.histories))
    model.train(was_training)
    return {gate: ndcg(np.concatenate(parts), 10) for gate, parts in ranks.items()}


@contextmanager
def restored_gate(model: DarecModel) -> Iterator[None]:
    """Whatever happens to the late gate inside, it is as before afterwards."""
    if model.collaborative is None:
        yield
        return
    gate = model.late_gate.detach().clone()
    try:
        yield
    finally:
        with torch.no_grad():
            model.late_gate.copy_(gate)
