"""A bank of gated weights from training to a 4-bit run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from darec.cli import app
from darec.config import Settings, parse_settings
from darec.errors import ConfigError
from darec.model.recommender import DarecModel
from darec.training.loop import train
from darec.training.optimizer import parameter_groups
from darec.training.quantize import quantize_run

HISTORIES = [[0, 5, 3, 7, 9, 2, 6], [12, 13], [15], [8, 19, 14, 10, 18]]


def settings(layers: list[list[str]]) -> Settings:
    return parse_settings(
        {
            "sequence": {"max_items": 4, "max_text_tokens": 8, "max_encoding_tokens": 24},
            "backbone": {"tiny": True},
            "adapters": {"layers": layers, "weights": "gated", "balance_loss_weight": 0.5},
            "collaborative": {"hidden_size": 16, "max_items": 8, "epochs": 2},
            "training": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "precision": "fp32"},
        }
    )


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    chosen = settings([["lora_attention:8", "parallel:16"], ["serial:4"]])
    return train(data, data.parent / "run", chosen, backbone=None)


def test_training_changes_gates_and_static_logits(run: Path):
    bank = DarecModel.load(run).bank
    assert bank.static_logits["0"].abs().min() > 1e-3
    assert all(bank.gates[layer].outer.weight.abs().max() > 1e-3 for layer in ("0", "1"))


def test_balance_is_logged_and_part_of_the_loss(run: Path):
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [event for event in events if event.get("stage") == "training"]
    assert steps[0]["balance"] == pytest.approx(0.0, abs=1e-5)  # all weights are equal at first
    assert steps[-1]["balance"] > 1e-6
    last = steps[-1]
    terms = last["next_item"] + 0.1 * last["title"] + 0.1 * last["mask"] + 0.3 * last["next_item_without_late"]
    assert last["loss"] == pytest.approx(terms + 0.5 * last["collaborative"] + 0.5 * last["balance"], abs=1e-4)


def test_static_logits_train_fast_and_gates_with_decay(run: Path):
    model = DarecModel.load(run).requires_grad_(True)
    maps, _, vectors, scalars, _ = parameter_groups(model, Settings())
    assert scalars["lr"] > maps["lr"]
    assert scalars["weight_decay"] == 0 < maps["weight_decay"]

    def holds(group: dict, name: str) -> bool:
        return any(parameter is model.get_parameter(name) for parameter in group["params"])

    assert holds(scalars, "bank.static_logits.0")
    assert holds(maps, "bank.gates.1.outer.weight")
    assert holds(maps, "bank.bottlenecks.1_serial.down.weight")
    assert holds(vectors, "bank.bottlenecks.1_serial.up.bias")


def test_four_bit_run_keeps_the_bank_to_half_precision(run: Path):
    quantize_run(run, run.parent / "run4")
    full, four = DarecModel.load(run), DarecModel.load(run.parent / "run4")
    theirs = dict(four.bank.named_parameters())
    assert len(theirs) > 10
    for name, parameter in full.bank.named_parameters():
        torch.testing.assert_close(theirs[name], parameter, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        weights = [model.read(HISTORIES).adaption.weights for model in (full, four)]
    assert torch.equal(weights[0].isnan(), weights[1].isnan())
    assert (weights[0] - weights[1]).nan_to_num().abs().max() < 0.1
    assert np.isfinite(four.score(HISTORIES)).all()


def test_info_prints_the_architecture_layer_by_layer(run: Path):
    result = CliRunner().invoke(app, ["info", str(run)])
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert any(line.endswith("lora_attention rank 8 alpha 16, parallel width 16") for line in lines)
    assert any("layer 2" in line and line.endswith("serial width 4") for line in lines)


def test_layers_that_the_backbone_lacks_are_refused_before_training(data: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="backbone's 2 layers; got 3, so layer 3 has no counterpart"):
        train(data, tmp_path / "run", settings([[], [], ["serial:8"]]), backbone=None)
    assert not list(tmp_path.rglob("metrics.jsonl"))
