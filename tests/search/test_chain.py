"""A whole search on invented films: supernet, trials, retraining, choice."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from darec.cli import app
from darec.config import Settings, parse_settings
from darec.errors import ConfigError, RunError
from darec.model.recommender import DarecModel
from darec.runs import read_run
from darec.search import chain
from darec.search.chain import search, train_once
from darec.search.results import load_search, read_architecture
from darec.search.space import Space
from darec.search.supernet import Score, Supernet


def settings(**adapters: Any) -> Settings:
    return parse_settings(
        {
            "sequence": {"max_items": 4, "max_text_tokens": 8, "max_encoding_tokens": 24},
            "backbone": {"tiny": True},
            "adapters": adapters,
            "collaborative": {"hidden_size": 16, "max_items": 8, "epochs": 1},
            "training": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "precision": "fp32", "patience": 1},
        }
    )


ARGUMENTS: dict[str, Any] = {
    "backbone": None,
    "trials": 7,
    "random_trials": 3,
    "users": 16,
    "k": 2,
    "retrain_epochs": 1,
}


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    """A search interrupted at its fifth trial, and gone on with."""
    out, score, calls = data.parent / "run", Supernet.score, []

    def score_or_stop(self: Supernet, architecture: tuple[tuple[str, ...], ...]) -> Score:
        calls.append(architecture)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return score(self, architecture)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Supernet, "score", score_or_stop)
        with pytest.raises(KeyboardInterrupt):
            search(data, out, settings(), **ARGUMENTS)
        with pytest.raises(RunError, match="holds an unfinished search or an old one"):
            search(data, out, settings(), **ARGUMENTS)
        for name, changes in (
            ("seed", {"seed": 1}),
            ("storage", {"storage": data.parent / "elsewhere"}),
            ("retrain_epochs", {"retrain_epochs": 2}),
        ):
            with pytest.raises(RunError, match=f"begun with another {name}"):
                search(data, out, settings(), resume=True, **{**ARGUMENTS, **changes})
        assert not out.exists()
        search(data, out, settings(), resume=True, **ARGUMENTS)
    assert len(calls) == 11  # ten trials, one of them begun twice
    return out


def test_every_trial_is_kept_and_told_apart(run: Path):
    result = load_search(run)
    assert result.trials["sampler"].value_counts().to_dict() == {"warm start": 5, "random": 3, "bayesian": 2}
    assert len(result.best_so_far) == 7
    assert result.uniform["parameters"].is_monotonic_increasing
    assert result.summary["trials"] == {"warm start": 5, "random": 3, "bayesian": 2}
    assert 0 < result.summary["trial_share"] < 10


def test_a_pause_of_the_machine_does_not_count_as_training(tmp_path: Path):
    events = [("short way", 2.0), ("short way", 900.0), *[("training", 1.0)] * 4, ("training", 500.0)]
    lines = [json.dumps({"stage": stage, "seconds": seconds}) for stage, seconds in events]
    (tmp_path / "log").write_text("\n".join(lines) + "\n")
    assert chain._undisturbed(tmp_path / "log") == 2 * 2 + 5 * 1


def test_candidates_and_controls_are_retrained_equally_long_and_the_best_is_chosen(run: Path):
    result = load_search(run)
    table = result.retrained.set_index("label")
    assert {"searched 1", "uniform LoRA", "random"} <= set(table.index)
    assert (table["epochs"] == 1).all()
    of_the_search = table[table.index.str.startswith("searched")]
    assert len(of_the_search) < len(table)
    assert of_the_search["ndcg@10"].idxmax() == result.summary["winner"]
    assert table["winner"].sum() == 1
    searched = result.trials[result.trials["sampler"] != "random"]
    assert table.loc["searched 1", "cross_entropy"] == searched["cross_entropy"].min()
    layers = read_architecture(table.loc["uniform LoRA", "architecture"])
    assert len(set(layers)) == 1
    assert [entry.split(":")[0] for entry in layers[0]] == ["lora_attention", "lora_mlp"]


def test_the_random_control_had_no_more_draws_than_the_search_had_trials(run: Path):
    table = load_search(run).trials
    draws = table[table["sampler"] == "random"]
    lucky = draws.assign(cross_entropy=0.0, number=range(100, 100 + len(draws)), architecture="[[], []]")
    space = Space(width=64, map_widths=((512, 576),) * 2, gate_inputs=80)
    many = pd.concat([table, *[draws.assign(number=draws["number"] + 3 * n) for n in range(1, 4)], lucky])
    assert chain._candidates(space, many, 1)["random"] == chain._candidates(space, table, 1)["random"] != ((), ())


def test_a_folder_with_another_training_is_not_taken_for_this_one(run: Path, data: Path):
    done = next((run.with_name(f"{run.name}.search") / "alone").iterdir())
    with pytest.raises(RunError, match="trained with other settings"):
        train_once(done, data, settings(rank=4), backbone=None)


def test_a_training_that_was_interrupted_before_its_log_is_begun_anew(data: Path, tmp_path: Path, monkeypatch):
    begun: list[tuple[bool, bool]] = []
    monkeypatch.setattr(chain, "train", lambda data, run, settings, resume: begun.append((resume, any(run.iterdir()))))
    (tmp_path / "supernet" / "backbone").mkdir(parents=True)
    (tmp_path / "supernet" / "backbone" / "config.json").touch()
    train_once(tmp_path / "supernet", data, settings())
    (tmp_path / "supernet" / "metrics.jsonl").touch()
    train_once(tmp_path / "supernet", data, settings())
    assert begun == [(False, False), (True, True)]


def test_the_winner_is_a_run_like_any_other(run: Path):
    result = load_search(run)
    info = read_run(run)  # its manifest holds
    manifest = json.loads((run / "manifest.json").read_text())
    assert {"search.json", "trials.parquet", "model.safetensors"} <= set(manifest)
    winner = result.retrained[result.retrained["winner"]].iloc[0]
    assert info["kind"] == "darec"
    assert info["backbone"] == "tiny"
    assert info["settings"]["adapters"]["weights"] == "gated"
    assert json.dumps(info["settings"]["adapters"]["layers"]) == winner["architecture"]
    assert info["validation"]["ndcg@10"] == winner["ndcg@10"]
    assert DarecModel.load(run).score([[1, 2]]).shape == (1, 20)
    printed = CliRunner().invoke(app, ["info", str(run)]).output
    first = read_architecture(winner["architecture"])[0]
    assert "layer 1" in printed
    assert all(entry.split(":")[0] in printed for entry in first)


def test_two_processes_can_grow_a_finished_search_without_training_again(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    trained = []
    train = chain.train

    def count(data: Path, out: Path, *arguments: Any, **named: Any) -> Path:
        trained.append(out.name)
        return train(data, out, *arguments, **named)

    monkeypatch.setattr(chain, "train", count)
    before = load_search(run)
    run.rename(run.with_name("kept"))
    search(data, run, settings(), resume=True, **{**ARGUMENTS, "random_trials": 6}, workers=2)
    after = load_search(run)
    assert "supernet" not in trained
    assert len(after.trials) == 13
    assert set(before.trials["cross_entropy"]) <= set(after.trials["cross_entropy"])
    run.rename(run.with_name("grown"))
    run.with_name("kept").rename(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "number of trials must be at least 1; got 0"),
        ({"workers": 0}, "number of workers must be at least 1; got 0"),
        ({"random_trials": -1}, "number of random trials must be at least 0; got -1"),
        ({"users": 0}, "number of validation users must be at least 1; got 0"),
        ({"k": 0}, "number of retrained architectures must be at least 1; got 0"),
        ({"kinds": ["none", "attention+mlp", "prefix"]}, "layer 1 and all others 'prefix' was given"),
        ({"max_size": 65}, "between 4 and 64; got 65"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(data: Path, tmp_path: Path, changes, message):
    with pytest.raises(ConfigError, match=message):
        search(data, tmp_path / "run", settings(), **{**ARGUMENTS, **changes})
    assert list(tmp_path.iterdir()) == []


def test_settings_that_choose_adapters_themselves_are_refused(data: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"leave adapters\.layers"):
        search(data, tmp_path / "run", settings(layers=(("serial:8",), ())), **ARGUMENTS)


def test_trials_of_another_search_are_not_added_to(data: Path, tmp_path: Path):
    storage = tmp_path / "trials.journal"
    storage.touch()
    with pytest.raises(RunError, match="holds the trials of another search"):
        search(data, tmp_path / "run", settings(), storage=storage, **ARGUMENTS)


def test_nothing_to_go_on_with_is_said(data: Path, tmp_path: Path):
    with pytest.raises(RunError, match="nothing to go on with"):
        search(data, tmp_path / "run", settings(), resume=True, **ARGUMENTS)
