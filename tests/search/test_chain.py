"""A whole search on invented films: supernet, trials, retraining, choice."""

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tqdm import tqdm
from typer.testing import CliRunner

from darec.cli import app
from darec.config import Settings, parse_adapter, parse_settings
from darec.data.interactions import Dataset
from darec.data.splits import split
from darec.errors import ConfigError, RunError
from darec.model.recommender import DarecModel
from darec.runs import read_run
from darec.search import chain
from darec.search.chain import search, train_once
from darec.search.results import choose_best_few, load_search, pareto_front, read_architecture
from darec.search.space import read_space
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
    "retrain_epochs": 2,
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
            ("retrain_epochs", {"retrain_epochs": 1}),
        ):
            with pytest.raises(RunError, match=f"begun with another {name}"):
                search(data, out, settings(), resume=True, **{**ARGUMENTS, **changes})
        assert not out.exists()
        search(data, out, settings(), resume=True, **ARGUMENTS)
    result = load_search(out)
    uniform = result.retrained.set_index("label").loc["uniform LoRA", "architecture"]
    # Ten trials, one of them begun twice; then uniform LoRA as large as the winner, unless a trial had it.
    assert len(calls) == 11 + (uniform not in set(result.trials["architecture"]))
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
    assert (table["epochs"] == 2).all()
    of_the_search = table[table.index.str.startswith("searched")]
    assert len(of_the_search) < len(table)
    assert of_the_search["ndcg@10"].idxmax() == result.summary["winner"]
    assert table["winner"].sum() == 1
    searched = result.trials[result.trials["sampler"] != "random"]
    assert table.loc["searched 1", "cross_entropy"] == searched["cross_entropy"].min()
    best = choose_best_few(pareto_front(searched), 2)["architecture"]
    assert of_the_search["architecture"].tolist() == best.tolist()
    layers = read_architecture(table.loc["uniform LoRA", "architecture"])
    assert len(set(layers)) == 1
    assert [entry.split(":")[0] for entry in layers[0]] == ["lora_attention", "lora_mlp"]


def test_uniform_lora_is_as_large_as_the_winner_and_scored_like_a_trial(run: Path, data: Path):
    result = load_search(run)
    table = result.retrained.set_index("label")
    space = read_space(None, Dataset.load(data).catalog, settings(weights="gated"))
    wanted = int(table.loc[result.summary["winner"], "parameters"])
    own = read_architecture(table.loc["uniform LoRA", "architecture"])
    gaps = {size: abs(space.parameters(space.uniform(size)) - wanted) for size in range(4, 65)}
    assert gaps[parse_adapter(own[0][0])[1]] == min(gaps.values())
    supernet = Supernet.load(run.with_name(f"{run.name}.search") / "supernet", space, ARGUMENTS["users"])
    found = supernet.score(own)
    assert (found.cross_entropy, found.ndcg) == (
        pytest.approx(table.loc["uniform LoRA", "cross_entropy"]),
        pytest.approx(table.loc["uniform LoRA", "supernet_ndcg@10"]),
    )


def test_what_is_trained_alone_begins_alike_and_ends_after_equal_steps(run: Path):
    work = run.with_name(f"{run.name}.search")
    table = load_search(run).retrained
    steps, seeds, injected = set(), set(), set()
    for folder in table["run"]:
        info = read_run(work / folder)
        seeds.add(info["seed"])
        assert info["settings"]["training"]["keep"] == "last"
        assert info["best_epoch"] == info["epochs"] == 2
        log = [json.loads(line) for line in (work / folder / "metrics.jsonl").read_text().splitlines()]
        steps.add(sum(event["stage"] == "training" for event in log))
        injected.add(json.dumps([event for event in log if event["stage"] == "collaborative"]))
    assert len(steps) == 1
    assert len(injected) == 1  # seconds and all: one CF model, trained once
    assert seeds == {load_search(run).summary["seed"]}


@pytest.fixture
def other_targets(data: Path, tmp_path: Path) -> Path:
    """The same data, but that everybody's newest item, which test asks for, is another one."""
    dataset, folder = Dataset.load(data), tmp_path / "data"
    rows = dataset.interactions.copy()
    watched = rows.groupby("user_id")["item_id"].agg(set)
    for row in rows.groupby("user_id")["timestamp"].idxmax():
        seen = watched[rows.at[row, "user_id"]]
        rows.at[row, "item_id"] = next(item for item in map(str, dataset.catalog.item_ids) if item not in seen)
    folder.mkdir()
    Dataset(dataset.catalog, rows, dataset.note).save(folder)
    assert (split(dataset).test.targets != split(Dataset.load(folder)).test.targets).all()
    return folder


def test_a_search_does_not_look_at_test(run: Path, other_targets: Path, tmp_path: Path):
    search(other_targets, tmp_path / "run", settings(), **ARGUMENTS)
    one, same = load_search(run), load_search(tmp_path / "run")
    columns = ["sampler", "architecture", "cross_entropy", "ndcg@10"]
    pd.testing.assert_frame_equal(
        one.trials.sort_values(["sampler", "number"])[columns].reset_index(drop=True),
        same.trials.sort_values(["sampler", "number"])[columns].reset_index(drop=True),
    )
    assert one.summary["winner"] == same.summary["winner"]
    assert one.retrained["ndcg@10"].tolist() == same.retrained["ndcg@10"].tolist()


def test_the_random_control_had_no_more_draws_than_the_search_had_trials(run: Path):
    table = load_search(run).trials
    draws = table[table["sampler"] == "random"]
    lucky = draws.assign(cross_entropy=0.0, number=range(100, 100 + len(draws)), architecture="[[], []]")
    many = pd.concat([table, *[draws.assign(number=draws["number"] + 3 * n) for n in range(1, 4)], lucky])
    assert chain._candidates(many, 1)[1] == chain._candidates(table, 1)[1] != [((), ())]


def test_a_folder_with_another_training_is_not_taken_for_this_one(run: Path, data: Path, other_targets: Path):
    done = next((run.with_name(f"{run.name}.search") / "alone").iterdir())
    own = parse_settings(read_run(done)["settings"])
    train_once(done, data, own, backbone=None)
    for name, arguments in (
        ("settings", (data, settings(rank=4), 0)),
        ("seed", (data, own, 1)),
        ("data", (other_targets, own, 0)),
    ):
        folder, wanted, seed = arguments
        with pytest.raises(RunError, match=f"trained with other {name}"):
            train_once(done, folder, wanted, backbone=None, seed=seed)


def test_a_second_search_in_the_same_folder_is_refused(run: Path, data: Path, tmp_path: Path):
    out = tmp_path / "run"
    shutil.copytree(run.with_name(f"{run.name}.search"), out.with_name("run.search"))
    with chain._alone_in(out.with_name("run.search")), pytest.raises(RunError, match=r"A search works in .* already"):
        search(data, out, settings(), resume=True, **ARGUMENTS)
    assert not out.exists()
    search(data, out, settings(), resume=True, **ARGUMENTS)


def test_a_line_of_the_journal_that_was_not_written_to_its_end_costs_one_trial(run: Path, data: Path, tmp_path: Path):
    out = tmp_path / "run"
    shutil.copytree(run.with_name(f"{run.name}.search"), out.with_name("run.search"))
    journal = out.with_name("run.search") / "trials.journal"
    journal.write_bytes(journal.read_bytes()[:-20])
    search(data, out, settings(), resume=True, **ARGUMENTS)
    columns = ["sampler", "number", "cross_entropy"]
    before, after = (load_search(each).trials[columns] for each in (run, out))
    assert len(after) == len(before) == 10
    assert len(before.merge(after)) >= 9


def test_a_search_tells_how_far_it_is(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "run"
    shutil.copytree(run.with_name(f"{run.name}.search"), out.with_name("run.search"))
    monkeypatch.setattr(chain, "tqdm", partial(tqdm, mininterval=0))
    search(data, out, settings(), resume=True, **{**ARGUMENTS, "random_trials": 5})
    told = re.sub(r"\s+", " ", capsys.readouterr().err.replace("\r", "\n"))
    best = load_search(out).trials.groupby("sampler")["cross_entropy"].min()
    lowest = min(best["bayesian"], best["warm start"])
    assert re.search(rf"12/12 \[[\d:]+<[\d:]+.*best bayesian={lowest:.4f}, best random={best['random']:.4f}", told)


def test_a_training_that_was_interrupted_before_its_log_is_begun_anew(data: Path, tmp_path: Path, monkeypatch):
    begun: list[tuple[bool, bool]] = []
    monkeypatch.setattr(
        chain, "train", lambda data, run, settings, seed, resume: begun.append((resume, any(run.iterdir())))
    )
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

    started, run_workers = [], chain._run_workers
    monkeypatch.setattr(
        chain, "_run_workers", lambda task, workers, show: started.append(workers) or run_workers(task, workers, show)
    )
    monkeypatch.setattr(chain, "train", count)
    before = load_search(run)
    run.rename(run.with_name("kept"))
    search(data, run, settings(), resume=True, **{**ARGUMENTS, "random_trials": 6}, workers=2)
    after = load_search(run)
    assert "supernet" not in trained
    assert len(after.trials) == 13
    assert set(after.trials["worker"]) <= {0, 1}  # one may be done before the other has come up
    assert started == [2]
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
        ({"max_size": 65}, "layer 1 would be searched up to 65"),
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
