import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darec.config import Settings, parse_settings
from darec.data.interactions import Dataset
from darec.data.splits import split
from darec.errors import RunError
from darec.model.bank import Adaption
from darec.model.recommender import DarecModel, ScoreTerms
from darec.model.trained import load_trained
from darec.runs import read_run
from darec.search.space import Space, read_space
from darec.search.supernet import LayerMemory, Supernet, supernet_paths
from darec.training.log import TrainingLog
from darec.training.loop import Paths, train

HISTORIES = [[0, 5, 3, 7, 9, 2, 6], [12, 13], [15], [8, 19, 14, 10, 18]]
FIRST = (("lora_attention:8", "parallel:8"), ("serial:4",))
SAME_BELOW = (("lora_attention:8", "parallel:8"), ("lora_mlp:16", "serial:16"))
OTHER = (("lora_mlp:4",), ("serial:4",))


def settings(**changes: dict[str, Any]) -> Settings:
    values: dict[str, Any] = {
        "sequence": {"max_items": 4, "max_text_tokens": 8, "max_encoding_tokens": 24},
        "backbone": {"tiny": True},
        "adapters": {"weights": "gated"},
        "collaborative": {"hidden_size": 16, "max_items": 8, "epochs": 1},
        "training": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "precision": "fp32"},
    }
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change}
    return parse_settings(values)


@pytest.fixture(scope="module")
def space(film_dataset: Dataset) -> Space:
    return read_space(None, film_dataset.catalog, settings())


@pytest.fixture(scope="module")
def supernet_run(data: Path, space: Space) -> Path:
    return train(data, data.parent / "supernet", settings(), backbone=None, paths=supernet_paths(space, 0))


@pytest.fixture
def supernet(supernet_run: Path, space: Space) -> Supernet:
    return Supernet.load(supernet_run, space, users=16)


def inherited(state: dict[str, torch.Tensor], space: Space, architecture: tuple[tuple[str, ...], ...]):
    """The weights that an architecture built alone takes out of the supernet's."""
    sizes, kinds = space.sizes(architecture), space.adapter_kinds
    kept = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if ".lora_" in name:
            layer = next(int(part) for part in parts if part.isdecimal())
            size = int(sizes[layer, kinds.index("lora_attention" if "attn" in name else "lora_mlp")])
            tensor = tensor[:size] if "lora_A" in name else tensor[:, :size]
            if not size:
                continue
        elif name.startswith("bank.bottlenecks"):
            layer, kind = parts[2].split("_")
            size = int(sizes[int(layer), kinds.index(kind)])
            if not size:
                continue
            if "down" in name:
                tensor = tensor[:size]
            elif name.endswith("up.weight"):
                tensor = tensor[:, :size]
        elif name.startswith("bank.static_logits") or name.endswith("outer.weight"):
            present = [0, *(1 + index for index, size in enumerate(sizes[int(parts[2])]) if size)]
            tensor = tensor[present]
        kept[name] = tensor
    return kept


def test_an_architecture_built_alone_with_inherited_slices_scores_as_in_the_supernet(
    supernet: Supernet, supernet_run: Path, space: Space, film_dataset: Dataset
):
    for architecture in (FIRST, SAME_BELOW):
        chosen = settings(adapters={"layers": architecture})
        model = DarecModel.build(supernet_run / "backbone", film_dataset.catalog, np.ones(20), chosen, "cpu")
        own = inherited(load_trained(supernet_run, "cpu"), space, architecture)
        own["known"] = supernet.model.known
        own["late_gate"] = torch.ones(())
        model.load_trained_state(own)
        model.eval().refresh_item_encodings()
        supernet._memory.limit = 0  # what follows is no trial
        supernet.score(architecture)
        with supernet.model.bank.using(Adaption(sizes=space.sizes(architecture))):
            expected = supernet.model.score(HISTORIES)
        np.testing.assert_allclose(model.score(HISTORIES), expected, atol=1e-4)


def test_trained_adapters_of_the_supernet_differ_by_architecture(supernet: Supernet):
    values = [supernet.score(architecture).cross_entropy for architecture in (((), ()), FIRST, OTHER)]
    assert len({round(value, 5) for value in values}) == 3
    assert all(0 < value < 10 for value in values)


def test_remembered_layers_give_the_same_scores_and_are_counted(supernet_run: Path, space: Space):
    remembering = Supernet.load(supernet_run, space, users=16)
    plain = Supernet.load(supernet_run, space, users=16)
    plain._memory.limit = 0
    reused = []
    for architecture in (FIRST, OTHER, SAME_BELOW, FIRST, FIRST):
        with_memory, without = remembering.score(architecture), plain.score(architecture)
        assert with_memory.cross_entropy == without.cross_entropy
        assert with_memory.ndcg == without.ndcg
        assert without.layers_reused == 0
        reused.append(with_memory.layers_reused)
    assert reused == [0.0, 0.0, 0.5, 0.5, 1.0]


def test_a_trial_that_broke_off_leaves_nothing_half_remembered(supernet: Supernet, monkeypatch: pytest.MonkeyPatch):
    expected = supernet.score(OTHER)
    with monkeypatch.context() as patch:
        patch.setattr(DarecModel, "last_terms", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            supernet.score(FIRST)
    assert supernet.score(FIRST).layers_reused == 0
    assert supernet.score(OTHER).cross_entropy == expected.cross_entropy


def test_how_sure_scores_are_of_themselves_does_not_count(supernet: Supernet, monkeypatch: pytest.MonkeyPatch):
    expected, last_terms = supernet.score(FIRST), DarecModel.last_terms

    def surer(model: DarecModel, histories: list[list[int]]) -> ScoreTerms:
        return ScoreTerms(*(1.25**3 * term for term in last_terms(model, histories)))

    monkeypatch.setattr(DarecModel, "last_terms", surer)
    found = supernet.score(FIRST)
    assert found.cross_entropy == pytest.approx(expected.cross_entropy, rel=1e-5)
    assert (found.ndcg, found.late_gate) == (expected.ndcg, expected.late_gate)


def test_memory_stays_within_its_limit_and_forgets_deep_layers_first():
    class Add(torch.nn.Module):
        def forward(self, states):
            return (states + 1, "as some families' layers return them")

    layers = torch.nn.ModuleList([Add(), Add(), Add()])
    states = torch.zeros(5)  # 20 bytes
    memory = LayerMemory(layers, limit=2 * 2 * 20)  # two layers of two passes

    def trial(*architecture: str) -> int:
        memory.begin(tuple((entry,) for entry in architecture))
        for _ in range(2):
            value = states
            for layer in layers:
                value = layer(value)[0]
            assert value.tolist() == [3.0] * 5
        assert sum(20 * len(outputs) for outputs in memory.kept.values()) <= memory.limit
        return memory.reused

    assert [trial("a", "b", "c"), trial("a", "b", "d"), trial("a", "b", "e"), trial("a", "f", "g")] == [0, 1, 2, 1]
    assert list(memory.kept) == [(("a",), ("f",)), (("a",),)]


def test_each_step_has_its_own_architecture_by_seed_epoch_and_batch(space: Space):
    draw = supernet_paths(space, 0).draw
    assert torch.equal(draw(1, 2).sizes, supernet_paths(space, 0).draw(1, 2).sizes)
    drawn = {tuple(draw(epoch, batch).sizes.flatten().tolist()) for epoch in range(5) for batch in range(6)}
    assert len(drawn) > 25
    assert not torch.equal(draw(1, 2).sizes, supernet_paths(space, 1).draw(1, 2).sizes)


def test_a_step_moves_only_what_its_architecture_takes(data: Path, space: Space, tmp_path: Path):
    """What widens again begins at zero, and stays there where no step has it: slices beyond a size, absent kinds."""
    whole = supernet_paths(space, 0)
    paths = Paths(whole.plan, lambda epoch, batch: Adaption(sizes=space.sizes(FIRST)), whole.reference)
    train(data, tmp_path / "run", settings(training={"epochs": 1}), backbone=None, paths=paths)
    moved: dict[tuple[int, str], set[int]] = {}
    for name, tensor in load_trained(tmp_path / "run", "cpu").items():
        layer = next((int(part) for part in re.split(r"[._]", name) if part.isdecimal()), -1)
        if "lora_B" in name:
            kind = "lora_attention" if "attn" in name else "lora_mlp"
        elif name.startswith("bank.bottlenecks") and name.endswith("up.weight"):
            layer, kind = int(name.split(".")[2].split("_")[0]), name.split(".")[2].split("_", 1)[1]
        else:
            continue
        moved.setdefault((layer, kind), set()).update(np.flatnonzero((tensor != 0).any(dim=0)).tolist())
    assert moved == {
        (0, "lora_attention"): set(range(8)),
        (0, "parallel"): set(range(8)),
        (0, "lora_mlp"): set(),
        (0, "serial"): set(),
        (1, "lora_attention"): set(),
        (1, "lora_mlp"): set(),
        (1, "parallel"): set(),
        (1, "serial"): set(range(4)),
    }


def test_trials_are_scored_on_validation(supernet_run: Path, space: Space, film_dataset: Dataset):
    parts = split(film_dataset)
    found = Supernet.load(supernet_run, space, users=16).cases
    targets = dict(zip(parts.valid.user_ids, parts.valid.targets.tolist(), strict=True))
    assert len(found) == 16
    assert {user: targets[user] for user in found.user_ids} == dict(
        zip(found.user_ids, found.targets.tolist(), strict=True)
    )
    assert targets != dict(zip(parts.test.user_ids, parts.test.targets.tolist(), strict=True))


def test_an_interrupted_supernet_ends_as_the_uninterrupted(
    data: Path, space: Space, supernet_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Interruption(Exception):
        pass

    write = TrainingLog.write

    def write_or_stop(self: TrainingLog, **event) -> None:
        if event.get("step") == 6:
            raise Interruption
        write(self, **event)

    arguments = {"backbone": None, "paths": supernet_paths(space, 0)}
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "write", write_or_stop)
        with pytest.raises(Interruption):
            train(data, tmp_path / "run", settings(), **arguments)
    train(data, tmp_path / "run", settings(), resume=True, **arguments)
    one, other = (load_trained(run, "cpu") for run in (supernet_run, tmp_path / "run"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert read_run(supernet_run)["validation"] == read_run(tmp_path / "run")["validation"]


def test_a_supernet_is_no_model_to_use_and_no_other_run_is_a_supernet(supernet_run: Path, space: Space, film_run: Path):
    with pytest.raises(RunError, match="holds a supernet, not a DARec model"):
        DarecModel.load(supernet_run)
    with pytest.raises(RunError, match="not a supernet"):
        Supernet.load(film_run, space, users=4)
    assert parse_settings(read_run(supernet_run)["settings"]) == settings()
