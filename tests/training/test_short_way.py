"""The short way on planted tastes: after a film of one kind comes one of the next kind, never of the last."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from darec.config import Settings, parse_settings
from darec.data.catalog import Catalog
from darec.data.splits import Cases, Split
from darec.model.backbone import tiny_backbone
from darec.model.recommender import DarecModel
from darec.training.losses import StepLosses
from darec.training.short_way import train_short_way, validation_ndcg

KINDS = ("amber", "bronze", "cobalt", "denim", "ebony", "fawn", "gold", "henna")
EACH = 4
N = len(KINDS) * EACH


def kinds_in_turn() -> Split:
    random = np.random.default_rng(0)
    walks = []
    for _ in range(200):
        kinds = (random.integers(len(KINDS)) + np.arange(8)) % len(KINDS)
        walks.append(kinds * EACH + random.integers(EACH, size=8))
    ids = [str(user) for user in range(len(walks))]
    return Split(
        N,
        [walk[:6] for walk in walks],
        Cases(ids, [walk[:6] for walk in walks], np.array([walk[6] for walk in walks])),
        Cases(ids, [walk[:7] for walk in walks], np.array([walk[7] for walk in walks])),
    )


def model_of(settings: Settings) -> DarecModel:
    titles = [f"{kind} {'zyxw'[number]}" for kind in KINDS for number in range(EACH)]
    catalog = Catalog(pd.DataFrame({"item_id": [f"i{i}" for i in range(N)], "title": titles}))
    torch.manual_seed(0)
    backbone, tokenizer = tiny_backbone(catalog.full_texts, "llama")
    model = DarecModel(backbone, tokenizer, catalog, kinds_in_turn().popularity, settings)
    model.refresh_item_encodings()
    return model


def settings(**short_way: Any) -> Settings:
    return parse_settings(
        {
            "sequence": {"skip": True, "encoded_from": "words"},
            "short_way": {"epochs": 25, "learning_rate": 1e-2, "weight_decay": 0.01, **short_way},
            "collaborative": {"hidden_size": 16},
        }
    )


def kinds_after(model: DarecModel, kind: int) -> list[int]:
    """Kinds of what the short way puts first after a film of a kind."""
    items, row = torch.tensor([[kind * EACH]]), torch.tensor([0])
    with torch.no_grad():
        scores = model.score_past(items, row, row, torch.ones(N))[0]
    scores[kind * EACH] = -torch.inf
    return [item // EACH for item in scores.argsort(descending=True)[: EACH - 1].tolist()]


def test_learns_what_comes_next_and_not_what_came_before():
    model, events = model_of(settings()), []
    assert kinds_after(model, 3) == [3] * (EACH - 1)  # at first what is alike
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    best = train_short_way(StepLosses(model), kinds_in_turn(), seed=0, on_epoch=events.append)
    for kind in range(len(KINDS)):
        assert kinds_after(model, kind) == [(kind + 1) % len(KINDS)] * (EACH - 1)
    assert best > 0.5  # the one of four that is meant cannot be known
    assert events[-1]["loss"] < events[0]["loss"] - 0.5
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {"skip.decay", "skip.shares", "skip.down", "skip.up", "item_bias"}


def test_the_best_epoch_is_kept_and_nothing_learns_on():
    model, events = model_of(settings(epochs=6, learning_rate=0.3)), []
    best = train_short_way(StepLosses(model), kinds_in_turn(), seed=0, on_epoch=events.append)
    values = [event["ndcg@10"] for event in events]
    assert best == max(values) != values[-1]
    assert validation_ndcg(model, kinds_in_turn().valid) == pytest.approx(best, abs=1e-9)
    assert not any(parameter.requires_grad for parameter in model.skip.parameters())
    assert model.item_bias.requires_grad
    assert model.item_bias.grad is None


def test_the_same_seed_learns_the_same_and_another_another():
    values = []
    for seed in (1, 1, 2):
        model = model_of(settings(epochs=2))
        train_short_way(StepLosses(model), kinds_in_turn(), seed=seed, on_epoch=lambda event: None)
        values.append(model.skip.up.detach())
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
