from typing import Any

import numpy as np
import pytest
import torch

from darec.config import CollaborativeSettings
from darec.data.splits import Cases, Split
from darec.errors import DataError
from darec.model.collaborative import SASRec
from darec.training.collaborative import train_collaborative

N = 24
SETTINGS = CollaborativeSettings(
    hidden_size=16, num_layers=1, dropout=0.0, max_items=10, learning_rate=0.01, batch_size=16, epochs=25, patience=25
)


def walk_split(users: int = 60) -> Split:
    """Each user walks through the catalogue in one direction with a step of her own, 1 or 7: the order tells which."""
    random = np.random.default_rng(0)
    walks = [(random.integers(N) + random.choice([1, 7]) * np.arange(8)) % N for _ in range(users)]
    ids = [str(user) for user in range(users)]
    return Split(
        N,
        [walk[:6] for walk in walks],
        Cases(ids, [walk[:6] for walk in walks], np.array([walk[6] for walk in walks])),
        Cases(ids, [walk[:7] for walk in walks], np.array([walk[7] for walk in walks])),
    )


def trained(seed: int, settings: CollaborativeSettings = SETTINGS) -> tuple[SASRec, float, list[dict[str, Any]]]:
    split, events = walk_split(), []
    torch.manual_seed(seed)
    model = SASRec(N, settings, known=torch.from_numpy(split.popularity > 0))
    best = train_collaborative(model, split, settings, seed=seed, device="cpu", on_epoch=events.append)
    return model, best, events


def test_model_learns_the_direction_and_step_of_a_walk():
    model, best, events = trained(0)
    assert events[-1]["loss"] < events[0]["loss"] / 2
    assert best > 0.9
    scores = model.score(model(torch.tensor([[0, 7, 14], [0, 1, 2], [2, 9, 16]]))[:, -1])
    assert scores.argmax(1).tolist() == [21, 3, 23]


def test_same_seed_gives_the_same_model_and_another_seed_another():
    (a, best_a, events_a), (b, best_b, events_b), (c, _, _) = trained(1), trained(1), trained(2)
    assert best_a == best_b
    assert [event["loss"] for event in events_a] == [event["loss"] for event in events_b]
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.embeddings, c.embeddings)


def test_best_state_is_restored_and_training_stops_without_progress():
    settings = SETTINGS.model_copy(update={"learning_rate": 0.3, "epochs": 40, "patience": 3})
    _, best, events = trained(0, settings)
    values = [event["ndcg@10"] for event in events]
    assert best == max(values)
    assert len(values) == values.index(best) + 1 + 3


def test_every_epoch_is_reported():
    _, _, events = trained(0, SETTINGS.model_copy(update={"epochs": 2}))
    assert [event["epoch"] for event in events] == [1, 2]
    assert all(event.keys() == {"stage", "epoch", "loss", "ndcg@10", "seconds"} for event in events)
    assert {event["stage"] for event in events} == {"collaborative"}


def test_data_without_anything_to_learn_from_are_refused():
    nobody = Cases([], [], np.array([], np.int64))
    with pytest.raises(DataError, match=r"at least two training items and validation cases; got 0 and 0"):
        train_collaborative(
            SASRec(N, SETTINGS),
            Split(N, [np.array([1])], nobody, nobody),
            SETTINGS,
            seed=0,
            device="cpu",
            on_epoch=lambda event: None,
        )
