import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from invented_films import COLD_FILMS

from darec.config import Settings, parse_settings
from darec.data.interactions import Dataset, validated
from darec.data.splits import Cases, split
from darec.errors import ConfigError, RunError
from darec.evaluation.metrics import ndcg, rank_of
from darec.model.backbone import save_backbone, tiny_backbone
from darec.model.recommender import DarecModel
from darec.model.trained import load_trained
from darec.runs import read_run
from darec.training.collaborative import train_collaborative
from darec.training.log import TrainingLog
from darec.training.loop import train
from darec.training.optimizer import parameter_groups, schedule
from darec.training.tuning import TEMPERATURES, Read, calibrate, read_cases, tune, validation_ndcg


class Interruption(Exception):
    pass


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settings(**changes: dict[str, Any]) -> Settings:
    values: dict[str, Any] = {
        "sequence": {"max_items": 4, "max_text_tokens": 8, "max_encoding_tokens": 24},
        "backbone": {"tiny": True},
        "collaborative": {"hidden_size": 16, "max_items": 8, "epochs": 2},
        "training": {"epochs": 2, "batch_size": 16, "precision": "fp32"},
    }
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change}
    return parse_settings(values)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_trained(run, "cpu")


def log_of(run: Path) -> list[dict[str, Any]]:
    """Every line of the training log but for its seconds."""
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in event.items() if name != "seconds"} for event in events]


def assert_same_training(first: Path, second: Path) -> None:
    assert log_of(first) == log_of(second)
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert read_run(first)["validation"] == read_run(second)["validation"]


def interrupt_at(monkeypatch: pytest.MonkeyPatch, is_it: Callable[[dict[str, Any]], bool]) -> None:
    write = TrainingLog.write

    def write_or_stop(self: TrainingLog, **event: Any) -> None:
        if is_it(event):
            raise Interruption
        write(self, **event)

    monkeypatch.setattr(TrainingLog, "write", write_or_stop)


class TestSchedule:
    @pytest.mark.parametrize(
        ("step", "share"), [(0, 0.5), (1, 1.0), (2, 1.0), (4, 0.5 + 0.5**1.5), (6, 0.5), (10, 0.0), (11, 0.0)]
    )
    def test_warms_up_and_falls_by_a_cosine(self, step: int, share: float):
        assert schedule(step, steps=10, warmup_share=0.2) == pytest.approx(share, abs=1e-12)

    def test_training_of_one_step_has_a_rate(self):
        assert schedule(0, steps=1, warmup_share=0.0) == 1.0

    def test_run_starts_with_the_warm_up_and_ends_at_zero(self, data: Path, tmp_path: Path):
        chosen = settings(
            training={"epochs": 2, "warmup_share": 0.5, "learning_rate": 0.01}, collaborative={"epochs": 1}
        )
        rates = [
            e["learning_rate"] for e in log_of(train(data, tmp_path / "run", chosen, backbone=None)) if "title" in e
        ]
        after = [0.01 * schedule(step, steps=8, warmup_share=0.5) for step in range(1, 9)]
        assert rates == pytest.approx(after)
        assert rates[-1] == 0.0


def test_a_sample_of_the_users_is_learned_from_and_tuned_on(data: Path, tmp_path: Path):
    run = train(data, tmp_path / "run", settings(training={"users": 20, "epochs": 1, "batch_size": 4}), backbone=None)
    assert [event["stage"] for event in log_of(run)].count("training") == 5
    assert read_run(run)["validation"]["users"] == 20


class TestParameterGroups:
    @pytest.fixture
    def groups(self, make_model: Callable[..., DarecModel]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        rates = {"learning_rate": 0.002, "collaborative_learning_rate": 0.0001, "weight_decay": 0.03}
        chosen = settings(sequence={"skip": True}, short_way={"learning_rate": 0.0005}, training=rates)
        model = make_model(settings=chosen)
        return dict(model.named_parameters()), parameter_groups(model, chosen)

    def test_hold_every_trained_weight_once(self, groups):
        parameters, found = groups
        trained = [id(parameter) for parameter in parameters.values() if parameter.requires_grad]
        assert sorted(id(parameter) for group in found for parameter in group["params"]) == sorted(trained)
        assert len(trained) < len(parameters)

    @pytest.mark.parametrize(
        ("name", "rate", "decay"),
        [
            ("text_projection.weight", 0.002, 0.03),
            ("injection.item.weight", 0.002, 0.03),
            ("soft_tokens", 0.002, 0.0),
            ("state_norm.weight", 0.002, 0.0),
            ("item_bias", 0.02, 0.0),
            ("late_gate", 0.02, 0.0),
            ("skip.decay", 0.02, 0.0),
            ("skip.shares", 0.0005, 0.03),
            ("skip.up", 0.0005, 0.03),
            ("collaborative.embeddings", 0.0001, 0.0),
            ("collaborative.layers.0.qkv.weight", 0.0001, 0.0),
        ],
    )
    def test_give_each_its_rate_and_decay(self, groups, name: str, rate: float, decay: float):
        parameters, found = groups
        group = next(group for group in found if any(p is parameters[name] for p in group["params"]))
        assert (group["lr"], group["weight_decay"]) == (rate, decay)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Trained with the seeds 3, 3 and 4."""
    folder = tmp_path_factory.mktemp("seeds")
    trained = []
    for number, seed in enumerate((3, 3, 4)):
        torch.manual_seed(number)  # what was drawn before must not matter
        trained.append(train(data, folder / str(number), settings(), backbone=None, seed=seed))
    return trained


class TestSameSeed:
    def test_gives_equal_metrics_and_weights(self, runs: list[Path]):
        assert_same_training(runs[0], runs[1])

    def test_another_seed_gives_others(self, runs: list[Path]):
        assert log_of(runs[0]) != log_of(runs[2])
        assert not torch.equal(weights(runs[0])["soft_tokens"], weights(runs[2])["soft_tokens"])

    def test_run_is_whole_and_its_figures_are_those_of_the_loaded_model(self, runs: list[Path]):
        info = read_run(runs[0])
        assert (info["kind"], info["seed"], info["epochs"]) == ("darec", 3, 2)
        assert not (runs[0] / "checkpoint").exists()
        model = DarecModel.load(runs[0])
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        cases = split(Dataset.load(runs[0] / "data")).valid
        assert validation_ndcg(model, cases, 7) == pytest.approx(info["validation"]["ndcg@10"], abs=1e-9)

    def test_item_encodings_of_a_run_are_those_of_its_backbone(self, runs: list[Path]):
        model = DarecModel.load(runs[0])
        saved = model.item_encodings.clone()
        model.refresh_item_encodings()
        torch.testing.assert_close(model.item_encodings, saved, rtol=0, atol=1e-5)

    def test_weights_kept_are_best_with_and_without_cf_among_those_no_worse_than_the_cf_model(self, runs: list[Path]):
        for run in runs:
            events = [event for event in log_of(run) if event["stage"] == "validation"]
            assert len(events) == 2
            info = read_run(run)
            alone = info["validation"]["collaborative_alone_ndcg@10"]
            worth = [(event["ndcg@10"] >= alone, event["ndcg@10"] + event["ndcg@10_cf_off"]) for event in events]
            best = worth.index(max(worth))
            assert info["best_epoch"] == 1 + best
            for name in ("ndcg@10", "ndcg@10_cf_off"):
                assert info["validation"][name] == events[best][name]


@pytest.fixture(scope="module", params=[1, 3], ids=["each batch a step", "three batches a step"])
def interruptible(request: pytest.FixtureRequest) -> Settings:
    return settings(
        sequence={"skip": True},
        short_way={"epochs": 1},
        injection={"followers": 2},
        training={"accumulation_steps": request.param, "checkpoint_minutes": 1e-9},
    )


@pytest.fixture(scope="module")
def whole(interruptible: Settings, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, tmp_path_factory.mktemp("whole") / "run", interruptible, backbone=None, seed=1)


class TestInterruptedTraining:
    """Goes on exactly as it would have gone, wherever it was cut off."""

    @pytest.mark.parametrize(
        "where",
        [
            {"stage": "training", "step": 1},
            {"stage": "validation", "epoch": 1},
            {"stage": "training", "step": 5},
            {"stage": "training", "step": 8},
        ],
        ids=str,
    )
    def test_ends_as_the_uninterrupted(
        self, where: dict[str, Any], interruptible: Settings, whole: Path, data: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):  # fmt: skip
        run = tmp_path / "run"
        with monkeypatch.context() as patch:
            interrupt_at(patch, lambda event: where.items() <= event.items())
            with pytest.raises(Interruption):
                train(data, run, interruptible, backbone=None, seed=1)
        assert not (run / "run.json").exists()
        torch.manual_seed(99)
        assert_same_training(train(data, run, interruptible, backbone=None, seed=1, resume=True), whole)


def test_the_rate_moves_once_in_several_batches(whole: Path, interruptible: Settings):
    rates = [event["learning_rate"] for event in log_of(whole) if event["stage"] == "training"]
    same = [number for number in range(1, 8) if rates[number] == rates[number - 1]]
    # Four batches an epoch: each a step, or the third and the last, the first of which ends the warm-up at its rate.
    assert same == ([] if interruptible.training.accumulation_steps == 1 else [1, 2, 4, 5])


def test_a_clipped_gradient_moves_the_adapters_by_so_much_less(data: Path, tmp_path: Path):
    moved = {}
    for clip in (1e30, 1e-12):  # below the epsilon of Adam, which would scale it up again
        chosen = settings(training={"gradient_clip": clip, "weight_decay": 0.0})
        run = train(data, tmp_path / str(clip), chosen, backbone=None)
        state = DarecModel.load(run).trained_state()
        moved[clip] = max(tensor.abs().max().item() for name, tensor in state.items() if "lora_B" in name)  # from 0
    assert moved[1e-12] < 1e-5 < 1e-3 < moved[1e30]


class TestShortWay:
    def test_learns_by_itself_and_then_rests(self, data: Path, tmp_path: Path):
        runs = []
        for rate in (1e-3, 1e-2):
            chosen = settings(
                sequence={"skip": True},
                short_way={"epochs": 3, "learning_rate": 1e-3},
                training={"learning_rate": rate},
            )
            runs.append(train(data, tmp_path / str(rate), chosen, backbone=None))
        stages = [event["stage"] for event in log_of(runs[0])]
        assert stages[:6] == ["collaborative"] * 2 + ["short way"] * 3 + ["training"]
        (one, other), differing = map(weights, runs), set()
        for name in one:
            if not torch.equal(one[name], other[name]):
                differing.add(name)
        assert not {name for name in differing if name.startswith("skip.")}
        assert {"text_projection.weight", "item_bias"} <= differing
        assert one["skip.up"].any()

    def test_learns_with_everything_else_where_it_has_no_epochs(self, data: Path, tmp_path: Path):
        run = train(data, tmp_path / "run", settings(sequence={"skip": True}), backbone=None)
        assert "short way" not in {event["stage"] for event in log_of(run)}
        assert weights(run)["skip.up"].any()


class TestResuming:
    @pytest.fixture
    def cut(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        with monkeypatch.context() as patch:
            interrupt_at(patch, lambda event: event.get("step") == 2)
            with pytest.raises(Interruption):
                train(data, tmp_path / "run", settings(), backbone=None, seed=1)
        return tmp_path / "run"

    def test_with_other_settings_is_refused(self, data: Path, cut: Path):
        other = settings(training={"learning_rate": 0.5})
        with pytest.raises(RunError, match="was begun with another settings"):
            train(data, cut, other, backbone=None, seed=1, resume=True)

    def test_with_another_seed_is_refused(self, data: Path, cut: Path):
        with pytest.raises(RunError, match="was begun with another seed"):
            train(data, cut, settings(), backbone=None, seed=2, resume=True)

    def test_with_another_backbone_is_refused(
        self, data: Path, film_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        folders = [str(tmp_path / name) for name in ("llama", "gpt2")]
        for folder, family in zip(folders, ("llama", "gpt2"), strict=True):
            save_backbone(*tiny_backbone(film_dataset.catalog.full_texts, family), Path(folder))
        chosen = settings(backbone={"tiny": False})
        with monkeypatch.context() as patch:
            interrupt_at(patch, lambda event: event.get("step") == 2)
            with pytest.raises(Interruption):
                train(data, tmp_path / "run", chosen, backbone=folders[0])
        with pytest.raises(RunError, match="was begun with another backbone"):
            train(data, tmp_path / "run", chosen, backbone=folders[1], resume=True)
        train(data, tmp_path / "run", chosen, backbone=folders[0], resume=True)
        assert read_run(tmp_path / "run")["backbone"] == "llama"  # no path of this machine

    def test_with_other_data_is_refused(self, data: Path, cut: Path, film_dataset: Dataset, tmp_path: Path):
        (tmp_path / "other").mkdir()
        fewer = film_dataset.interactions[film_dataset.interactions["user_id"] != "user 7"]
        Dataset(film_dataset.catalog, fewer.reset_index(drop=True)).save(tmp_path / "other")
        with pytest.raises(RunError, match="was begun with another data"):
            train(tmp_path / "other", cut, settings(), backbone=None, seed=1, resume=True)

    def test_altered_checkpoint_is_refused(self, data: Path, cut: Path):
        state = cut / "checkpoint" / "state.pt"
        content = bytearray(state.read_bytes())
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
        with pytest.raises(RunError, match="does not have the bytes its manifest names"):
            train(data, cut, settings(), backbone=None, seed=1, resume=True)

    def test_unfinished_run_is_not_begun_again_unasked(self, data: Path, cut: Path):
        with pytest.raises(RunError, match="add --resume to go on"):
            train(data, cut, settings(), backbone=None, seed=1)

    @pytest.mark.parametrize("folder", ["never", "other"])
    def test_nothing_to_go_on_with_is_refused_and_left_alone(self, data: Path, tmp_path: Path, folder: str):
        precious = tmp_path / "other" / "backbone" / "precious.txt"
        precious.parent.mkdir(parents=True)
        precious.write_text("mine")
        with pytest.raises(RunError, match="There is nothing to go on with"):
            train(data, tmp_path / folder, settings(), backbone=None, resume=True)
        with pytest.raises(RunError, match=r"must be new or empty: .*other\. Choose another\.$"):
            train(data, tmp_path / "other", settings(), backbone=None)
        assert precious.read_text() == "mine"

    def test_before_the_first_checkpoint_begins_with_the_backbone_asked_for(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        run = tmp_path / "run"
        with monkeypatch.context() as patch:
            interrupt_at(patch, lambda event: event["stage"] == "collaborative")
            with pytest.raises(Interruption):
                train(data, run, settings(), backbone=None, seed=1)
        train(data, run, settings(), backbone=None, seed=2, resume=True)
        assert_same_training(run, train(data, tmp_path / "fresh", settings(), backbone=None, seed=2))
        for name in ("model.safetensors", "config.json"):
            assert (run / "backbone" / name).read_bytes() == (tmp_path / "fresh" / "backbone" / name).read_bytes()


def test_training_stops_when_validation_no_longer_improves(data: Path, tmp_path: Path):
    chosen = settings(
        training={"epochs": 50, "patience": 2, "learning_rate": 1e-60, "collaborative_learning_rate": 1e-60}
    )
    info = read_run(train(data, tmp_path / "run", chosen, backbone=None))
    assert (info["epochs"], info["best_epoch"]) == (3, 1)


def test_the_last_weights_are_kept_where_settings_say_so(data: Path, tmp_path: Path):
    """Validation sees no step this small, so that the first epoch counts as the best."""
    small = {"epochs": 3, "patience": 3, "learning_rate": 1e-12, "collaborative_learning_rate": 1e-12}
    best, last = (
        train(data, tmp_path / keep, settings(training=small | {"keep": keep}), backbone=None)
        for keep in ("best", "last")
    )
    assert [read_run(run)["best_epoch"] for run in (best, last)] == [1, 3]
    assert log_of(best) == log_of(last)
    assert (best / "model.safetensors").read_bytes() != (last / "model.safetensors").read_bytes()


def test_precisions_of_two_trainings_in_one_process_are_their_own(data: Path, tmp_path: Path):
    logs = []
    for precision in ("fp32", "bf16", "fp32"):
        chosen = settings(training={"epochs": 1, "precision": precision}, collaborative={"epochs": 1})
        run = train(data, tmp_path / f"run {len(logs)}", chosen, backbone=None)
        logs.append([event for event in log_of(run) if event["stage"] == "training"])
    assert logs[0] == logs[2]
    assert logs[0] != logs[1]
    losses = np.array([[event["loss"] for event in log] for log in logs[:2]])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)


def test_half_precision_on_a_cpu_is_refused(data: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"fp16 needs a GPU; the device is cpu"):
        train(data, tmp_path / "run", settings(training={"precision": "fp16"}), backbone=None, device="cpu")


def test_four_bit_training_on_a_cpu_is_refused(data: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="needs a CUDA GPU; the device is cpu"):
        train(data, tmp_path / "run", settings(backbone={"four_bit": True}), backbone=None, device="cpu")


def test_training_without_a_backbone_is_refused(data: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="Training needs a backbone"):
        train(data, tmp_path / "run", settings(backbone={"tiny": False}), backbone=None)


def test_diverging_training_stops_with_a_remedy(data: Path, tmp_path: Path):
    wild = settings(training={"learning_rate": 1e30, "gradient_clip": 1e30}, collaborative={"epochs": 1})
    with pytest.raises(ConfigError, match=r"loss must stay finite; .* Lower training.learning_rate"):
        train(data, tmp_path / "run", wild, backbone=None)


class TestAblations:
    """Each part can be switched off, and the run without it trains, loads and says so."""

    def trained(self, data: Path, tmp_path: Path, **changes: dict[str, Any]) -> tuple[DarecModel, list[dict[str, Any]]]:
        chosen = settings(**{"training": {"epochs": 1}, "collaborative": {"epochs": 1}} | changes)
        run = train(data, tmp_path / "run", chosen, backbone=None)
        model = DarecModel.load(run)
        cases = split(Dataset.load(run / "data")).valid
        assert validation_ndcg(model, cases, 16) == pytest.approx(read_run(run)["validation"]["ndcg@10"], abs=1e-9)
        events = log_of(run)
        assert all(math.isfinite(event["loss"]) for event in events if event["stage"] == "training")
        return model, events

    def test_without_context_masking(self, data: Path, tmp_path: Path):
        _, events = self.trained(data, tmp_path, masking={"enabled": False})
        assert {event["mask"] for event in events if event["stage"] == "training"} == {0.0}

    def test_without_the_cf_model(self, data: Path, tmp_path: Path):
        model, events = self.trained(data, tmp_path, collaborative={"enabled": False})
        assert model.collaborative is None
        assert {event["stage"] for event in events} == {"training", "validation"}
        assert not any("collaborative" in event for event in events)
        assert np.array_equal(model.score([[1, 2]]), model.score_without_collaborative([[1, 2]]))

    def test_without_adapters(self, data: Path, tmp_path: Path):
        model, _ = self.trained(data, tmp_path, adapters={"enabled": False})
        assert model.plan == []
        assert not any("lora" in name for name in model.trained_state())

    def test_without_the_title_loss(self, data: Path, tmp_path: Path):
        model, events = self.trained(data, tmp_path, title={"loss_weight": 0.0})
        head = model.title_head.weight
        assert torch.equal(head / head[0, 0], torch.eye(64))  # it has decayed a little, and learned nothing
        for event in events:
            if event["stage"] == "training":
                parts = event["next_item"] + 0.1 * event["mask"]
                parts += 0.3 * event["next_item_without_late"] + 0.5 * event["collaborative"]
                assert event["loss"] == pytest.approx(parts, abs=1e-5)

    @pytest.mark.parametrize("family", ["qwen3", "gpt2", "bert"])
    def test_backbone_of_another_family_is_trained_from_a_folder(
        self, data: Path, tmp_path: Path, family: str, film_dataset: Dataset
    ):
        save_backbone(*tiny_backbone(film_dataset.catalog.full_texts, family), tmp_path / family)
        chosen = settings(backbone={"tiny": False}, training={"epochs": 1}, collaborative={"epochs": 1})
        run = train(data, tmp_path / "run", chosen, backbone=str(tmp_path / family))
        model = DarecModel.load(run)
        assert model.backbone.config.model_type == family
        cases = split(Dataset.load(run / "data")).valid
        assert validation_ndcg(model, cases, 16) == pytest.approx(read_run(run)["validation"]["ndcg@10"], abs=1e-9)


COLOURS = ["crimson", "azure", "emerald"]
NOUNS = ["lantern", "harbour", "violin", "meadow", "compass"]


@pytest.fixture(scope="module")
def colours() -> Dataset:
    """After a crimson thing comes an azure one, then an emerald one, then crimson; three comets nobody has bought."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(80):
        unseen = {colour: list(generator.permutation(NOUNS)) for colour in COLOURS}
        start = int(generator.integers(3))
        for place in range(8):
            colour = COLOURS[(start + place) % 3]
            rows.append((f"u{user}", f"{colour} {unseen[colour].pop()}", place))
    titles = [f"{colour} {noun}" for noun in [*NOUNS, "comet"] for colour in COLOURS]
    items = pd.DataFrame({"item_id": titles, "title": titles})
    return validated(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]), items, source="colours")


def test_words_of_titles_are_learned_to_predict_the_next_item_cold_ones_too(colours: Dataset, tmp_path: Path):
    (tmp_path / "data").mkdir()
    colours.save(tmp_path / "data")
    chosen = settings(collaborative={"enabled": False}, training={"epochs": 5, "batch_size": 8, "learning_rate": 3e-3})
    run = train(tmp_path / "data", tmp_path / "run", chosen, backbone=None)
    model = DarecModel.load(run)
    index = colours.catalog.index_of
    generator = np.random.default_rng(0)
    known_first, cold_first = [], []
    for start in range(3):
        order = [COLOURS[(start + place) % 3] for place in range(4)]
        following, earlier = COLOURS[(start + 4) % 3], order[2:]
        nouns = [generator.permutation(NOUNS)[:4] for _ in range(40)]
        scores = model.score([[index(f"{c} {n}") for c, n in zip(order, chosen, strict=True)] for chosen in nouns])
        known = {colour: scores[:, [index(f"{colour} {noun}") for noun in NOUNS]] for colour in COLOURS}
        cold = {colour: scores[:, index(f"{colour} comet")] for colour in COLOURS}
        for colour in earlier:
            known_first.append((known[following].min(1) > known[colour].max(1)).mean())
            cold_first.append((cold[following] > cold[colour]).mean())
    assert np.mean(known_first) > 0.8
    assert np.mean(cold_first) > 0.8


def test_cf_model_learns_an_order_that_titles_do_not_tell(colours: Dataset, tmp_path: Path):
    (tmp_path / "data").mkdir()
    items = colours.catalog.items.assign(title="thing")
    Dataset(type(colours.catalog)(items), colours.interactions).save(tmp_path / "data")
    chosen = settings(
        collaborative={"epochs": 40, "batch_size": 16, "learning_rate": 3e-3, "dropout": 0.0, "patience": 40},
        training={"epochs": 2},
    )
    model = DarecModel.load(train(tmp_path / "data", tmp_path / "run", chosen, backbone=None))
    index = colours.catalog.index_of
    correct = []
    for number, colour in enumerate(COLOURS):
        after = {index(f"{COLOURS[(number + 1) % 3]} {noun}") for noun in NOUNS}
        histories = [[index(f"{COLOURS[number - 1]} {a}"), index(f"{colour} {b}")] for a in NOUNS for b in NOUNS]
        correct += [top in after for top in model.score(histories).argmax(1)]
    assert np.mean(correct) > 0.95


class TestCalibration:
    @pytest.fixture
    def model(self, make_model: Callable[..., DarecModel]) -> DarecModel:
        model = make_model()
        with torch.no_grad():
            model.text_projection.weight *= 5  # so sure of itself as no score deserves
        return model

    @pytest.fixture
    def cases(self, film_dataset: Dataset) -> Cases:
        return split(film_dataset).valid

    def read(self, model: DarecModel, cases: Cases, batch_size: int) -> list[list[Read]]:
        return [read_cases(model, cases, batch_size, collaborative=on) for on in (False, True)]

    def test_softens_scores_that_are_too_sure_and_changes_no_ranking(self, model: DarecModel, cases: Cases):
        histories = [history.tolist() for history in cases.histories]
        before = [model.score(histories), model.score_without_collaborative(histories)]
        (off, on), cf_off = calibrate(model, *self.read(model, cases, 7))
        assert cf_off == validation_ndcg(model, cases, 7, collaborative=False)
        assert off > 1
        assert on > 1
        after = [model.score(histories), model.score_without_collaborative(histories)]
        np.testing.assert_allclose(after[0], before[0] / on, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(after[1], before[1] / off, rtol=1e-3, atol=1e-4)

    def test_chooses_the_least_cross_entropy_whatever_was_set_before(self, model: DarecModel, cases: Cases):
        model.temperatures.fill_(3.0)
        found = calibrate(model, *self.read(model, cases, 100))
        assert found == calibrate(model, *self.read(model, cases, 9))
        model.temperatures.fill_(1.0)
        scores = torch.from_numpy(model.score([history.tolist() for history in cases.histories])).double()
        targets = torch.from_numpy(cases.targets)
        for row, history in zip(scores, cases.histories, strict=True):
            row[history.tolist()] = -torch.inf  # no probability is shown for what was seen
        losses = {t: F.cross_entropy(scores / t, targets).item() for t in TEMPERATURES}
        assert found[0][1] == pytest.approx(min(losses, key=lambda t: losses[t]))


NEW = np.isin(np.arange(20), COLD_FILMS)


class TestColdPrior:
    @pytest.fixture
    def model(self, make_model: Callable[..., DarecModel]) -> DarecModel:
        return make_model()

    def cases(self, targets: list[int], times: int = 34, asked: list[int] | None = None) -> Cases:
        histories = [np.array([0, 5]), np.array([7, 3]), np.array([12, 13])] * times
        when = None if asked is None else np.array(asked * times)
        return Cases([f"user {number}" for number in range(3 * times)], histories, np.array(targets * times), when)

    def test_lifts_cold_targets_that_are_outranked(self, model: DarecModel):
        with torch.no_grad():
            model.text_projection.weight.zero_()  # so that CF alone tells films apart, and cold ones are average
        cases = self.cases([4, 4, 4])
        before = validation_ndcg(model, cases, 2)
        model.cold_prior.fill_(9.0)  # whatever was set before
        value = tune(model, cases, 20, NEW, None)["ndcg@10"]
        assert 0 < model.cold_prior.item() < 9
        assert validation_ndcg(model, cases, 2) == value > before

    def test_lasts_as_long_as_cold_targets_are_asked_for(self, model: DarecModel):
        with torch.no_grad():
            model.text_projection.weight.zero_()
        day, newest = 86_400, 1_700_000_000
        asked = [newest, newest - 5 * day, newest - 400 * day]
        best = model.score([[12, 13]])[0].argsort()[::-1]
        first = next(int(item) for item in best if item not in (4, 11, 12, 13))  # by CF; cold items would outrank it
        cases = self.cases([4, 4, first], times=60, asked=asked)
        found = tune(model, cases, 20, NEW, None)
        assert found["cold_prior"] > 0
        assert 7 <= found["cold_days"] == model.cold_days.item() <= 120
        assert model.newest.item() == newest
        assert found["ndcg@10"] == validation_ndcg(model, cases, 7)
        ranks = [
            rank_of(model.asked(time).score([history]), np.array([target]), [np.array(history)])[0]
            for time, history, target in zip(asked, [[0, 5], [7, 3], [12, 13]], [4, 4, first], strict=True)
        ]
        assert ndcg(np.array(ranks), 10) == pytest.approx(found["ndcg@10"])
        assert ranks[2] == 1
        model.cold_days.fill_(torch.inf)
        assert validation_ndcg(model, cases, 7) < found["ndcg@10"]

    def test_lifts_a_taken_item_by_when_it_was_first_taken(self, model: DarecModel):
        day, first = 86_400, 1_700_000_000
        new, first_taken = np.arange(20) == 1, np.full(20, first - 900 * day)
        first_taken[1] = first
        with torch.no_grad():
            model.item_bias[1] = -50.0  # as training pushes down what hardly anybody took
        cases = self.cases([1, 1, 9], times=60, asked=[first, first + 5 * day, first - day])
        found = tune(model, cases, 20, new, first_taken)
        assert found["cold_prior"] > 0
        assert model.first_taken.tolist() == first_taken.tolist()
        assert found["ndcg@10"] > tune(model, cases, 20, new, np.full(20, first - 900 * day))["ndcg@10"]
        tune(model, cases, 20, new, None)
        assert model.first_taken.tolist() == [0] * 20

    def test_counts_whole_in_a_validation_whatever_the_late_gate(self, model: DarecModel):
        cases = self.cases([4, 4, 4])
        with torch.no_grad():
            model.late_gate.fill_(0.1)
        model.cold_prior.fill_(9.0)
        ranks = rank_of(model.score([history.tolist() for history in cases.histories]), cases.targets, cases.histories)
        assert validation_ndcg(model, cases, 2) == ndcg(ranks, 10) > 0.6

    def test_stays_zero_where_no_target_is_cold(self, model: DarecModel):
        cases = self.cases([9, 10, 14])
        assert tune(model, cases, 3, NEW, None)["ndcg@10"] == validation_ndcg(model, cases, 3)
        assert model.cold_prior.item() == 0

    def test_stays_zero_where_few_targets_are_cold(self, model: DarecModel):
        tune(model, self.cases([4, 4, 4], times=33), 20, NEW, None)
        assert model.cold_prior.item() == 0

    def test_is_for_new_items_where_validation_asks_for_them_and_else_for_unknown_ones(self, model: DarecModel):
        new = np.isin(np.arange(20), [1, 4])
        with torch.no_grad():
            model.item_bias[1] = -50.0
        tune(model, self.cases([1, 1, 1]), 20, new, None)
        assert model.cold.nonzero().flatten().tolist() == [1, 4, 11]
        tune(model, self.cases([9, 10, 14]), 20, new, None)
        assert model.cold.nonzero().flatten().tolist() == [4, 11]

    def test_leaves_new_items_as_they_are_where_cf_ranks_them_better(self, model: DarecModel):
        with torch.no_grad():
            model.item_bias[8] = 50.0  # what training has learned of it
        before = validation_ndcg(model, self.cases([8, 8, 8]), 2)
        found = tune(model, self.cases([8, 8, 8]), 20, np.arange(20) == 8, None)
        assert found["ndcg@10"] == before == 1.0
        assert model.cold.nonzero().flatten().tolist() == [4, 11]
        assert (found["cold_prior"], found["cold_days"]) == (0.0, None)

    def test_may_be_for_every_item(self, model: DarecModel):
        model.cold.fill_(True)
        assert np.isfinite(model.score([[0, 5], [3]])).all()


class TestFollowers:
    @pytest.fixture
    def model(self, make_model: Callable[..., DarecModel]) -> DarecModel:
        model = make_model(settings=settings(injection={"followers": 2}))
        coefficients = torch.zeros(20, 20)
        coefficients[0, 19] = coefficients[3, 18] = 0.2
        model.followers.keep(torch.arange(20), coefficients)
        return model

    @pytest.mark.parametrize(("targets", "trusted"), [([19, 18], True), ([9, 10], False)])
    def test_are_trusted_as_far_as_they_rank_validation_better(
        self, model: DarecModel, targets: list[int], trusted: bool
    ):
        histories = [np.array([0, 5]), np.array([3, 7])]
        cases = Cases(["a", "b"], histories, np.array(targets))
        with torch.no_grad():
            model.item_bias[targets] = 50.0 if not trusted else -1.0
        model.followers.trust.fill_(60.0)  # whatever was set before
        found = tune(model, cases, 2, NEW, None)
        assert found["followers_trust"] == model.followers.trust.item()
        assert (found["followers_trust"] > 0) == trusted
        assert found["ndcg@10"] == validation_ndcg(model, cases, 1)
        assert found["ndcg@10_cf_off"] == validation_ndcg(model, cases, 1, collaborative=False)
        model.followers.trust.zero_()
        assert (validation_ndcg(model, cases, 1) < found["ndcg@10"]) == trusted

    def test_are_fitted_before_the_joint_training_and_trusted_after_it(self, data: Path, tmp_path: Path):
        run = train(data, tmp_path / "run", settings(injection={"followers": 2}), backbone=None)
        model = DarecModel.load(run)
        films = torch.arange(20)[:, None]
        following = model.followers(films)
        likeliest = [(int(row.argmax()) - film) % 20 for film, row in enumerate(following) if row.any()]
        assert likeliest.count(1) > 12  # most watch the next film of the list
        assert model.followers.trust.item() == read_run(run)["validation"]["followers_trust"] > 0


def test_tuning_starts_anew_whatever_was_set_and_tells_what_it_set(make_model: Callable[..., DarecModel], film_dataset):
    model, cases = make_model(), split(film_dataset).valid
    found = tune(model, cases, 16, NEW, None)
    with torch.no_grad():
        for number in (model.late_gate, model.cold_prior, model.temperatures):
            number.fill_(7.0)
    assert tune(model, cases, 9, NEW, None) == found
    assert found["late_gate"] == model.late_gate.item()
    assert found["cold_prior"] == model.cold_prior.item()
    assert found["temperatures"] == model.temperatures.tolist()
    assert found["ndcg@10"] == validation_ndcg(model, cases, 16)
    with torch.no_grad():
        model.late_gate.fill_(1.0)
        model.cold_prior.zero_()
    assert found["ndcg@10"] >= validation_ndcg(model, cases, 16)


class TestSharedCollaborativeModel:
    @pytest.fixture
    def data(self, film_dataset: Dataset, tmp_path: Path) -> Path:
        (tmp_path / "data").mkdir()
        film_dataset.save(tmp_path / "data")
        return tmp_path / "data"

    @pytest.fixture
    def trained(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The seed of every training of a CF model."""
        seeds: list[int] = []

        def count(*arguments: Any, seed: int, **named: Any) -> float:
            seeds.append(seed)
            return train_collaborative(*arguments, seed=seed, **named)

        monkeypatch.setattr("darec.training.loop.train_collaborative", count)
        return seeds

    @pytest.mark.parametrize(
        "changes",
        [
            {"adapters": {"rank": 4}, "training": {"epochs": 1, "batch_size": 8, "precision": "fp32"}},
            {"sequence": {"skip": True}, "short_way": {"epochs": 1}, "injection": {"followers": 2}},
            {"adapters": {"layers": [["parallel:8"], []], "weights": "gated"}, "masking": {"enabled": False}},
        ],
    )
    def test_is_trained_once_and_changes_nothing(
        self, data: Path, tmp_path: Path, trained: list[int], changes: dict[str, Any]
    ):
        start: dict[str, Any] = {"backbone": None, "seed": 3, "device": "cpu"}
        alone = train(data, tmp_path / "alone", settings(**changes), **start)
        train(data, tmp_path / "first", settings(), shared=tmp_path / "shared", **start)
        assert trained == [3, 3]
        second = train(data, tmp_path / "second", settings(**changes), shared=tmp_path / "shared", **start)
        assert trained == [3, 3]
        assert_same_training(alone, second)

    def test_is_another_where_seed_settings_or_first_weights_are(self, data: Path, tmp_path: Path, trained: list[int]):
        start: dict[str, Any] = {"backbone": None, "device": "cpu", "shared": tmp_path / "shared"}
        train(data, tmp_path / "first", settings(), seed=3, **start)
        train(data, tmp_path / "second", settings(), seed=4, **start)
        shorter = settings(collaborative={"hidden_size": 16, "max_items": 6, "epochs": 1})
        train(data, tmp_path / "third", shorter, seed=3, **start)
        train(
            data, tmp_path / "fourth", settings(sequence={"encodings": False}), seed=3, **start
        )  # draws fewer numbers
        assert trained == [3, 4, 3, 3]

    def test_is_taken_by_a_training_that_was_interrupted_just_after(
        self, data: Path, tmp_path: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch
    ):
        start: dict[str, Any] = {"backbone": None, "seed": 3, "device": "cpu", "shared": tmp_path / "shared"}
        alone = train(data, tmp_path / "alone", settings(), **{**start, "shared": None})
        with monkeypatch.context() as patch:
            interrupt_at(patch, lambda event: event["stage"] == "training")
            with pytest.raises(Interruption):
                train(data, tmp_path / "run", settings(), **start)
        train(data, tmp_path / "run", settings(), resume=True, **start)
        train(data, tmp_path / "again", settings(), **start)
        assert trained == [3, 3]
        assert_same_training(alone, tmp_path / "run")
        assert_same_training(alone, tmp_path / "again")
