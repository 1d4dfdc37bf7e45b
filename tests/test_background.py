import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from darec.background import Job, Jobs, Standing, describe_progress, plan_training, read_events
from darec.config import Settings, load_settings
from darec.data.interactions import Dataset
from darec.data.splits import split
from darec.errors import RunError
from darec.lock import lock
from darec.runs import read_run

ROOT = Path(__file__).parents[1]
SHORT = ("training.epochs=20", "training.patience=20", "collaborative.epochs=1")


def training(data: Path, runs: Path, name: str = "films", overrides: tuple[str, ...] = SHORT) -> Job:
    settings = load_settings("classroom", None, overrides)
    chosen = [word for override in overrides for word in ("--set", override)]
    arguments = ("train", "--preset", "classroom", "--data", str(data), "--out", str(runs / name), *chosen)
    return Job(name, arguments, plan_training(split(Dataset.load(data)), settings))


def until(reached: Callable[[], object], jobs: Jobs) -> None:
    """Wait for something that a running job brings about."""
    while not reached():
        assert jobs.running(), "the job ended first"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_stopped_training_goes_on_and_becomes_a_run(data: Path, tmp_path: Path):
    jobs = Jobs(tmp_path / "runs")
    long = training(data, jobs.folder)
    jobs.start(long)
    with pytest.raises(RunError, match="One job runs at a time, and films is running"):
        jobs.start(training(data, jobs.folder, "second"))
    until(lambda: any(event["stage"] == "validation" for event in jobs.events_of(long)), jobs)
    jobs.stop()
    assert jobs.is_stopping() or not jobs.running()
    assert jobs.wait() == 130
    stopped_after = max(event["step"] for event in jobs.events_of(long) if event["stage"] == "training")
    assert stopped_after < long.plan["steps"]
    assert jobs.complaint(long) is None
    assert (jobs.path_of(long) / "checkpoint" / "manifest.json").is_file()

    restarted = Jobs(jobs.folder)  # as after the app was closed
    assert restarted.unfinished() == [long]
    restarted.start(long, resume=True)
    assert restarted.wait() == 0
    assert restarted.unfinished() == []
    assert read_run(jobs.path_of(long))["epochs"] == 20
    steps = [event["step"] for event in restarted.events_of(long) if event["stage"] == "training"]
    assert steps == list(range(1, long.plan["steps"] + 1))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is how other systems kill")
def test_a_job_ends_when_the_app_is_killed_and_a_second_app_waits_for_that(data: Path, tmp_path: Path):
    jobs = Jobs(tmp_path / "runs")
    job = training(data, jobs.folder, overrides=(*SHORT, "training.epochs=900", "training.patience=900"))
    (tmp_path / "job.json").write_text(json.dumps([job.name, job.arguments]))
    app = (
        "import json, sys, time; from pathlib import Path; from darec.background import Job, Jobs\n"
        "name, arguments = json.loads(Path(sys.argv[1]).read_text())\n"
        "Jobs(Path(sys.argv[2])).start(Job(name, tuple(arguments)))\n"
        "time.sleep(600)"
    )
    command = [sys.executable, "-c", app, str(tmp_path / "job.json"), str(jobs.folder)]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        log = jobs.path_of(job) / "metrics.jsonl"
        while not any(event["stage"] == "training" for event in read_events(log)):
            assert process.poll() is None, "the app ended first"
            time.sleep(0.02)
        second = Job("second", ("info", str(jobs.folder / "second"), "--json"))
        jobs.start(second)
        assert jobs.wait() == 2
        assert jobs.complaint(second).startswith("One job runs at a time, and another app has one")
        process.send_signal(signal.SIGKILL)

    import fcntl

    with open(jobs.folder / ".jobs" / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits until the job has ended
    assert not (jobs.path_of(job) / "manifest.json").exists()
    assert (jobs.path_of(job) / "checkpoint" / "manifest.json").is_file()
    assert Jobs(jobs.folder).unfinished() == [Job(job.name, job.arguments)]


def test_a_failed_job_says_why_in_one_sentence_and_can_be_dropped(tmp_path: Path):
    jobs = Jobs(tmp_path / "runs")
    job = Job("films", ("train", "--preset", "nowhere", "--data", "data", "--out", str(jobs.folder / "films")))
    jobs.start(job)
    assert jobs.wait() == 2
    assert jobs.latest() == job
    assert jobs.running() is None
    assert jobs.complaint(job).startswith("Unknown preset 'nowhere'")
    with open(jobs.folder / ".jobs" / "lock", "ab") as file:
        lock(file)  # as a job of another app has it
        with pytest.raises(RunError, match="Nothing can be dropped while a job runs"):
            jobs.drop(job)
    assert jobs.unfinished() == [job]
    jobs.drop(job)
    assert jobs.unfinished() == []


@pytest.mark.parametrize("interrupts", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def test_a_job_that_is_stopped_at_once_has_nothing_to_complain_of(data: Path, tmp_path: Path, interrupts):
    jobs = Jobs(tmp_path / "runs")
    job = training(data, jobs.folder)
    before = signal.signal(signal.SIGINT, interrupts)  # as an app that a script put into the background has it
    try:
        jobs.start(job)
    finally:
        signal.signal(signal.SIGINT, before)
    jobs.stop()
    assert jobs.wait() == 130
    assert jobs.complaint(job) is None
    assert jobs.unfinished() == [job]


def test_a_job_stands_where_its_last_printed_stage_is(tmp_path: Path):
    jobs, job = Jobs(tmp_path), Job("small", ("quantize", "run", "--out", str(tmp_path / "small")))
    assert jobs.stage_of(job) == Standing("Preparing", 0.0, None)
    log = tmp_path / ".jobs" / "small.log"
    log.parent.mkdir()
    log.write_text("1 of 4: reading the run\nA warning: 7 of 7\n2 of 4: bringing the weights to 4 bits\nAnother\n3 of")
    assert jobs.stage_of(job) == Standing("Bringing the weights to 4 bits", 0.25, None)


@pytest.mark.parametrize("name", ["", "../films", "a/b", ".hidden", "a" * 65, "two words"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str):
    with pytest.raises(RunError, match="A run is named by 1 to 64 letters"):
        Jobs(tmp_path).start(Job(name, ("info", "nowhere")))


def test_a_finished_run_is_neither_replaced_nor_dropped(film_run: Path):
    jobs = Jobs(film_run.parent)
    job = Job(film_run.name, ("info", "nowhere"))
    with pytest.raises(RunError, match="needs a name that is free"):
        jobs.start(job)
    with pytest.raises(RunError, match="Only an unfinished run can be dropped"):
        jobs.drop(job)
    assert read_run(film_run)


def test_a_record_that_is_no_job_is_passed_over(tmp_path: Path):
    (tmp_path / ".jobs").mkdir()
    (tmp_path / ".jobs" / "broken.json").write_text("{")
    (tmp_path / ".jobs" / "other.json").write_text("[1]")
    assert Jobs(tmp_path).unfinished() == []


def test_the_classroom_preset_is_below_a_million_parameters(data: Path, film_dataset: Dataset):
    from darec.model.backbone import tiny_backbone
    from darec.model.recommender import DarecModel

    settings = load_settings("classroom")
    texts = [f"{first} {second}" for first in film_dataset.catalog.full_texts for second in map(str, range(200))]
    backbone, tokenizer = tiny_backbone(texts)
    model = DarecModel(backbone, tokenizer, film_dataset.catalog, split(film_dataset).popularity, settings)
    items_of_ml_100k = 1682 * (settings.collaborative.hidden_size + 1)
    assert sum(parameter.numel() for parameter in model.parameters()) + items_of_ml_100k < 1_000_000


def test_a_plan_counts_steps_and_validations(film_dataset: Dataset):
    settings = Settings.model_validate({"training": {"epochs": 5, "batch_size": 16, "validate_every": 2}})
    users = sum(len(history) > 1 for history in split(film_dataset).train)
    assert 48 < users <= 60  # of 60: four batches of 16
    assert plan_training(split(film_dataset), settings) == {
        "collaborative": 100,
        "short way": 0,
        "epochs": 5,
        "steps": 20,
        "validations": 3,
    }
    few = settings.model_copy(update={"training": settings.training.model_copy(update={"users": 10})})
    assert plan_training(split(film_dataset), few)["steps"] == 5
    opened = {"sequence": {"skip": True}, "short_way": {"epochs": 2}, "collaborative": {"enabled": False}}
    plan = plan_training(split(film_dataset), Settings.model_validate(opened))
    assert (plan["collaborative"], plan["short way"]) == (0, 2)


PLAN = {"collaborative": 10, "short way": 2, "epochs": 4, "steps": 40, "validations": 4}
STEPS = [{"stage": "training", "epoch": 1, "step": step, "seconds": 0.5} for step in range(1, 11)]


def test_progress_is_told_by_stage():
    assert describe_progress([], PLAN).share == 0
    collaborative = describe_progress([{"stage": "collaborative"}] * 3, PLAN)
    assert (collaborative.stage, collaborative.share) == ("CF model first: epoch 3 of at most 10", 0.3)
    assert collaborative.seconds_left is None
    alone = describe_progress([{"stage": "collaborative"}] * 7 + [{"stage": "short way"}], PLAN)
    assert (alone.stage, alone.share) == ("Short way (words past the language model): epoch 1 of 2", 0.5)


def test_time_left_is_that_of_the_steps_and_validations_to_come():
    before = describe_progress(STEPS, PLAN)
    assert (before.stage, before.share, before.seconds_left) == ("Epoch 1 of 4, step 10 of 40", 0.25, 15)
    after = describe_progress([*STEPS, {"stage": "validation", "seconds": 2.0}], PLAN)
    assert after.seconds_left == 15 + 3 * 2


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    assert read_events(path) == []
    path.write_text('{"stage": "training"}\n{"sta')
    assert read_events(path) == [{"stage": "training"}]
