"""What the gate is for: two frozen adapters in different layers, each of which solves one group of users and spoils the
other. Only the gate trains, and it must learn to send each group to its own adapter."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from darec.config import AdapterSettings, CollaborativeSettings, SequenceSettings, Settings
from darec.model.bank import Adaption
from darec.model.recommender import DarecModel

GROUPS = (range(9), range(12, 20))  # the films that each group watches
NEUTRAL = range(9, 12)
TARGETS = (3, 17)  # what each group watches next, whatever came before
SMOOTHING = 0.2
BEST = -(0.81 * math.log(0.81) + 19 * 0.01 * math.log(0.01))  # the smallest loss there is, over 20 films
SOLUTIONS = ("bank.bottlenecks.0_serial.up.bias", "bank.bottlenecks.1_serial.up.bias")  # each pushes one way, always
ALONE = [Adaption(switched_off=torch.tensor(off)) for off in ([[False], [True]], [[True], [False]])]


def draw(sizes: tuple[int, int], where: str, rng: np.random.Generator) -> tuple[list[list[int]], Tensor]:
    """Histories and the group of each; tastes show in the window of 4 films, or only in what lies before it."""
    histories, groups = [], []
    for group, size in enumerate(sizes):
        for _ in range(size):
            taste = rng.choice(GROUPS[group], 4).tolist()
            histories.append(taste if where == "window" else taste + rng.choice(NEUTRAL, 4).tolist())
            groups.append(group)
    return histories, torch.tensor(groups)


def loss_of(model: DarecModel, histories: list[list[int]], groups: Tensor) -> tuple[Tensor, Tensor]:
    """[M] cross-entropy at every boundary but the first, which no gate knows anything about, and [M] groups."""
    encoded = model.read(histories)
    encoded = encoded.at(encoded.span > 0)
    group = groups[encoded.sequence]
    scores, targets = model.score_terms(encoded).text, torch.tensor(TARGETS)[group]
    # Smoothed, so that an adapter at a tenth of its strength is no answer: more certainty than was planted costs, too.
    return F.cross_entropy(scores, targets, reduction="none", label_smoothing=SMOOTHING), group


def train(model: DarecModel, parts: tuple[str, ...], steps: int, step_loss: Callable[[], Tensor]) -> None:
    model.requires_grad_(False)
    trained = [parameter.requires_grad_(True) for name, parameter in model.named_parameters() if name.startswith(parts)]
    assert trained
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        step_loss().backward()
        optimizer.step()


@pytest.mark.parametrize("where", ["window", "before"])
def test_gate_alone_learns_to_send_each_group_of_users_to_its_own_adapter(
    make_model: Callable[..., DarecModel], where: str
):
    settings = Settings(
        sequence=SequenceSettings(max_items=4, max_text_tokens=8, max_encoding_tokens=24, encodings=False),
        collaborative=CollaborativeSettings(enabled=where == "before", hidden_size=16, max_items=8),
        adapters=AdapterSettings(layers=(("serial:8",), ("serial:8",)), weights="gated"),
    )
    model = make_model("llama", settings, shaken=False)
    if model.collaborative is not None:  # a CF model that knows the two tastes
        with torch.no_grad():
            for films, sign in zip(GROUPS, (1, -1), strict=True):
                model.collaborative.embeddings[list(films)] += sign * torch.linspace(-0.5, 0.5, 16)
    rng = np.random.default_rng(0)

    def alone_loss() -> Tensor:
        losses = []
        for adaption, sizes in zip(ALONE, ((6, 0), (0, 6)), strict=True):
            with model.bank.using(adaption):
                losses.append(loss_of(model, *draw(sizes, where, rng))[0].mean())
        return torch.stack(losses).sum()

    histories, groups = draw((40, 20), where, np.random.default_rng(1))

    @torch.no_grad()
    def losses_by_group() -> list[float]:
        losses, group = loss_of(model, histories, groups)
        return [losses[group == number].mean().item() for number in (0, 1)]

    train(model, (*SOLUTIONS, "text_projection"), 40, alone_loss)
    for group, adaption in enumerate(ALONE):
        with model.bank.using(adaption):
            alone = losses_by_group()
        assert alone[group] < BEST + 0.02
        assert alone[1 - group] > 2.5
    with torch.no_grad():
        for logits in model.bank.static_logits.values():
            logits[0] = 2.0  # neither adapter says much until the gate sends a user to it
    before = losses_by_group()
    assert min(before) > BEST + 0.2

    train(model, ("bank.gates",), 60, lambda: loss_of(model, *draw((8, 4), where, rng))[0].mean())
    assert max(losses_by_group()) < BEST + 0.03
    with torch.no_grad():
        weights = model.read(histories).adaption.weights[:, 1:, :, 0]  # [n, S - 1, L]
    mean = torch.stack([weights[groups == group].mean(dim=(0, 1)) for group in (0, 1)])  # [group, layer]
    own, others = mean.diagonal(), mean.flip(1).diagonal()
    assert (own > 0.35).all()
    assert (others < own / 2).all()
    assert (mean.diagonal() > 2 * mean.flip(0).diagonal()).all()  # nor is any adapter simply on for everybody
