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
from torch import Tensor

from darec.data.splits import Cases
from darec.evaluation.metrics import gains, ndcg, rank_of
from darec.model.collaborative import left_pad
from darec.model.recommender import DarecModel
from darec.model.seen import set_seen_aside

TEMPERATURES = tuple(1.25**power for power in range(-6, 16))  # 0.26 to 28: of the softmax of scores
COLD_PRIORS = tuple(0.25 * step for step in range(13))  # 0 to 3: what cold items get on top
FEWEST_COLD = 100  # validation targets; of fewer nothing is concluded
LATE_GATES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0)  # shares of CF's own score that validation chooses


def validation_ndcg(model: DarecModel, cases: Cases, batch_size: int, *, collaborative: bool = True) -> float:
    """NDCG@10, seen items removed, of a model whose item encodings are fresh; its mode is restored."""
    gate = model.late_gate.item() if model.collaborative is not None else 0.0
    return float(_gains(model, cases, batch_size, (gate,), collaborative=collaborative).mean())


def choose_late_gate(model: DarecModel, cases: Cases, batch_size: int) -> float:
    """Set the model's late gate to the one of `LATE_GATES` that ranks best, and return that NDCG@10.

    The gate that training learns trusts the CF model as far as it knows the training targets; how far to trust it on
    others is a question for validation.
    """
    if model.collaborative is None:
        return validation_ndcg(model, cases, batch_size)
    values = _gains(model, cases, batch_size, LATE_GATES).mean(axis=(1, 2))
    with torch.no_grad():
        model.late_gate.fill_(LATE_GATES[values.argmax()])
    return float(values.max())


def tune(model: DarecModel, cases: Cases, batch_size: int) -> dict[str, Any]:
    """Set a trained model's few numbers that no training can: late gate, cold prior, temperatures; tells what they are.

    All validation users are asked, for during training only some were. The late gate is chosen with no cold prior.
    Where at least `FEWEST_COLD` targets are cold, the cold prior is then the largest that costs no more NDCG@10 than
    one standard error of the paired difference from the best: what is new now will be asked for more often than
    validation, which lies in the past, knows of.
    """
    chosen: dict[str, Any] = {}
    if model.collaborative is None:
        value = validation_ndcg(model, cases, batch_size)
    else:
        cold_targets = int(model.cold[torch.from_numpy(cases.targets).to(model.device)].sum())
        priors = COLD_PRIORS if cold_targets >= FEWEST_COLD else (0.0,)
        shares = _gains(model, cases, batch_size, LATE_GATES, priors)
        gate = int(shares[:, 0].mean(axis=1).argmax())
        prior = last_within_an_error_of_the_best(shares[gate])
        with torch.no_grad():
            model.late_gate.fill_(LATE_GATES[gate])
            model.cold_prior.fill_(priors[prior])
        chosen = {"late_gate": model.late_gate.item(), "cold_prior": model.cold_prior.item()}
        value = float(shares[gate, prior].mean())
    temperatures, cf_off = calibrate(model, cases, batch_size)
    found = {"ndcg@10": value, "users": len(cases), **chosen, "temperatures": temperatures}
    return found if model.collaborative is None else found | {"ndcg@10_cf_off": cf_off}


@torch.no_grad()
def calibrate(model: DarecModel, cases: Cases, batch_size: int) -> tuple[list[float], float]:
    """Set the model's temperatures, CF path off and on, to those of `TEMPERATURES` with the least cross-entropy.

    Over what was not seen, as probabilities are shown. No ranking changes. Without this the softmax of scores that were
    chosen for their ranking is far too sure of itself.
    (Guo et al., On Calibration of Modern Neural Networks, ICML 2017.)

    Returns:
        The two temperatures, and NDCG@10 with the CF path off, which is at hand then.
    """
    model.temperatures.fill_(1.0)
    losses = np.zeros((2, len(TEMPERATURES)))
    ranks = []
    for batch in cases.batches(batch_size):
        targets = torch.from_numpy(batch.targets).to(model.device)
        for on in (False,) if model.collaborative is None else (False, True):
            terms = model.last_terms([history.tolist() for history in batch.histories], collaborative=on)
            scores = unseen(terms.total().float(), batch)
            losses[int(on)] += [F.cross_entropy(scores / t, targets, reduction="sum").item() for t in TEMPERATURES]
            if not on:
                ranks.append(rank_of(scores.cpu().numpy(), batch.targets, batch.histories))
    if model.collaborative is None:
        losses[1] = losses[0]
    model.temperatures.copy_(torch.tensor(TEMPERATURES)[losses.argmin(axis=1)])
    return model.temperatures.tolist(), ndcg(np.concatenate(ranks), 10)


def unseen(scores: Tensor, batch: Cases) -> Tensor:
    """[B, N] scores of a batch with -inf for what each history holds, but for the target: as evaluation ranks."""
    seen = left_pad(batch.histories, max(map(len, batch.histories)))
    return set_seen_aside(scores, seen.to(scores.device), torch.from_numpy(batch.targets).to(scores.device))


def _gains(
    model: DarecModel,
    cases: Cases,
    batch_size: int,
    gates: tuple[float, ...],
    priors: tuple[float, ...] | None = None,
    *,
    collaborative: bool = True,
) -> np.ndarray:
    """[gates, priors, users] float64: each user's share in NDCG@10 by late gate and cold prior, from one reading.

    Args:
        priors: in place of the model's own.
    """
    was_training = model.training
    model.eval()
    priors = priors or (model.cold_prior.item(),)
    ranks = np.empty((len(gates), len(priors), len(cases)), np.int64)
    done = 0
    with restored_gate(model):
        if model.collaborative is not None:
            torch.nn.init.ones_(model.late_gate)
        for batch in cases.batches(batch_size):
            terms = model.last_terms([history.tolist() for history in batch.histories], collaborative=collaborative)
            with_cf = terms.late.any(dim=1, keepdim=True)  # the cold prior is for these alone
            cold = with_cf * model.cold / model.temperatures[1]
            for i, gate in enumerate(gates):
                for j, prior in enumerate(priors):
                    scores = terms.without_late() + gate * terms.late + (prior - model.cold_prior) * cold
                    ranked = rank_of(scores.float().cpu().numpy(), batch.targets, batch.histories)
                    ranks[i, j, done : done + len(batch)] = ranked
            done += len(batch)
    model.train(was_training)
    return gains(ranks, 10)


def last_within_an_error_of_the_best(values: np.ndarray) -> int:
    """The last row of [rows, users] whose mean lies within one standard error, of their difference, of the best."""
    losses = values[values.mean(axis=1).argmax()] - values
    errors = losses.std(axis=1, ddof=1) / losses.shape[1] ** 0.5 if losses.shape[1] > 1 else np.zeros(len(losses))
    return int(np.flatnonzero(losses.mean(axis=1) <= errors).max())


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
