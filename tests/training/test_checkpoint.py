import json
import math
import re
from pathlib import Path

import pytest
import torch

from darec.errors import RunError
from darec.runs import recorded_files
from darec.training.checkpoint import FOLDER, Progress, load_checkpoint, save_checkpoint
from darec.training.log import TrainingLog
from darec.training.output import close_run

IDENTITY = {"settings": {"training": {"epochs": 3}}, "seed": 7, "data": "abc"}


def parts(value: float) -> dict[str, object]:
    weight = torch.nn.Parameter(torch.full((2,), value))
    optimizer = torch.optim.AdamW([{"params": [weight], "lr": 0.1}])
    weight.sum().backward()
    optimizer.step()
    return {"model": {"weight": weight.detach()}, "optimizer": optimizer.state_dict(), "scaler": None}


def save(run: Path, value: float = 1.0) -> Progress:
    progress = Progress(epoch=2, batch=5, best=0.25, best_epoch=1, validations_since_best=1, seconds=1.5, log_bytes=99)
    save_checkpoint(run, progress, IDENTITY, parts(value), {"weight": torch.tensor([value])})
    return progress


def test_checkpoint_gives_back_what_was_saved(tmp_path: Path):
    saved = save(tmp_path)
    loaded = load_checkpoint(tmp_path, IDENTITY)
    assert loaded is not None
    progress, states, best = loaded
    assert math.isnan(progress.collaborative)
    progress.collaborative = saved.collaborative
    assert progress == saved
    assert torch.equal(best["weight"], torch.tensor([1.0]))
    assert torch.equal(states["model"]["weight"], parts(1.0)["model"]["weight"])
    assert states["optimizer"]["state"][0]["step"] == 1
    assert states["scaler"] is None


def test_newer_checkpoint_replaces_the_older_whole(tmp_path: Path):
    save(tmp_path, 1.0)
    save(tmp_path, 2.0)
    loaded = load_checkpoint(tmp_path, IDENTITY)
    assert loaded is not None
    assert loaded[2]["weight"].item() == 2.0
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


def test_failed_write_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path, 1.0)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, 2.0)
    loaded = load_checkpoint(tmp_path, IDENTITY)
    assert loaded is not None
    assert loaded[2]["weight"].item() == 1.0
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


def kill_in_the_swap(run: Path) -> None:
    """What is left when a newer checkpoint was about to take its place: the older one is set aside."""
    (run / f".{FOLDER}-old-x").mkdir()
    (run / FOLDER).rename(run / f".{FOLDER}-old-x" / "folder")
    (run / f".{FOLDER}-y").mkdir()
    (run / f".{FOLDER}-y" / "state.pt").touch()


def test_checkpoint_set_aside_by_a_killed_swap_is_found(tmp_path: Path):
    save(tmp_path, 1.0)
    kill_in_the_swap(tmp_path)
    loaded = load_checkpoint(tmp_path, IDENTITY)
    assert loaded is not None
    assert loaded[2]["weight"].item() == 1.0
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


def test_finished_run_lists_nothing_that_killed_checkpoints_left(tmp_path: Path):
    save(tmp_path)
    (tmp_path / "model").touch()
    kill_in_the_swap(tmp_path)
    (tmp_path / ".backbone-z").mkdir()
    (tmp_path / ".backbone-z" / "config.json").touch()
    close_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "model"]
    assert recorded_files(tmp_path) == ["model"]


def test_run_without_a_checkpoint_has_none(tmp_path: Path):
    assert load_checkpoint(tmp_path, IDENTITY) is None


@pytest.mark.parametrize(("name", "value"), [("settings", {}), ("seed", 8), ("data", "abd"), ("backbone", "gpt2")])
def test_checkpoint_of_another_training_is_refused(tmp_path: Path, name: str, value: object):
    save(tmp_path)
    with pytest.raises(RunError, match=f"was begun with another {name} and can only go on with the same"):
        load_checkpoint(tmp_path, IDENTITY | {name: value})


@pytest.mark.parametrize("harm", ["flipped bit", "truncated", "missing", "no manifest"])
def test_damaged_checkpoint_is_refused(tmp_path: Path, harm: str):
    save(tmp_path)
    state = tmp_path / FOLDER / "state.pt"
    content = bytearray(state.read_bytes())
    if harm == "flipped bit":
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    elif harm == "truncated":
        state.write_bytes(content[:-10])
    elif harm == "missing":
        state.unlink()
    else:
        (tmp_path / FOLDER / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"Copy the run again|was not written to its end"):
        load_checkpoint(tmp_path, IDENTITY)


class TestLog:
    def lines(self, path: Path) -> list[dict[str, object]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    def test_holds_one_event_a_line(self, tmp_path: Path):
        with TrainingLog(tmp_path / "log") as log:
            log.write(stage="training", loss=0.5)
            log.write(stage="validation", epoch=1)
        assert self.lines(tmp_path / "log") == [{"stage": "training", "loss": 0.5}, {"stage": "validation", "epoch": 1}]

    def test_is_cut_back_to_the_checkpoint_and_goes_on(self, tmp_path: Path):
        with TrainingLog(tmp_path / "log") as log:
            log.write(step=1)
            size = log.size()
            log.write(step=2)
            log.write(step=3)
        assert size == len('{"step": 1}\n')
        with TrainingLog(tmp_path / "log", keep_bytes=size) as log:
            log.write(step="two again")
        assert self.lines(tmp_path / "log") == [{"step": 1}, {"step": "two again"}]

    def test_shows_progress_on_stderr_and_nothing_on_stdout(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        with TrainingLog(tmp_path / "log") as log:
            log.open_bar("training", total=4, done=1, unit="batch")
            log.advance(loss=0.123456, ndcg=0.5)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "2/4" in shown.err
        assert "loss=0.1235, ndcg=0.5" in shown.err
        assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, .*(batch/s|s/batch)", shown.err)  # time spent, time left, rate
