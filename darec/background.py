"""Commands that run beside the app, one at a time: begun, watched, stopped, and never left behind.

A job is a command of `python -m darec` in a process of its own. Its standard input is a pipe into which nothing is
written. The pipe closes when the app stops the job, and the system closes it when the app ends, however it ends; the
job then interrupts itself, as Ctrl-C would. That works alike on Linux, macOS and Windows.

    FOLDER/.jobs/NAME.json   the command of a job, by which it can go on, and how long it will be
    FOLDER/.jobs/NAME.log    what it printed
    FOLDER/.jobs/lock        locked by the job that runs, so that no second app begins one beside it
"""

import _thread
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from darec.config import Settings
from darec.data.splits import Split
from darec.errors import RunError
from darec.lock import lock
from darec.runs import MANIFEST, write_json

_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,63}")
_STAGE = re.compile(r"(\d+) of (\d+): (.+)")
_RECORDS = ".jobs"
LOG = "metrics.jsonl"  # what training writes into the run that it makes
_GRACE = 30.0  # seconds that an interrupted command has to end by itself


@dataclass(frozen=True)
class Job:
    """A command that makes a run.

    Attributes:
        name: of the folder that it makes.
        arguments: what stands behind `python -m darec`, without `--resume`.
        plan: of a training, from `plan_training`.
    """

    name: str
    arguments: tuple[str, ...]
    plan: Mapping[str, int] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """`train` or `quantize`."""
        return self.arguments[0]


class Jobs:
    """The jobs of one folder of runs. Threads may share it; at most one job runs.

    Args:
        folder: where the runs are made; made itself when the first job begins.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._job: Job | None = None

    def start(self, job: Job, *, resume: bool = False) -> None:
        """Begin a job.

        Args:
            job: its `--out` must be `path_of` its name.
            resume: go on with an unfinished training.

        Raises:
            RunError: another one runs, the name is no folder name, or the folder is taken.
        """
        with self._guard:
            if self._process is not None and self._process.poll() is None and self._job is not None:
                raise RunError(
                    f"One job runs at a time, and {self._job.name} is running. Stop it, or wait for its end."
                )
            if not _NAME.fullmatch(job.name):
                raise RunError(
                    "A run is named by 1 to 64 letters, digits, dots, hyphens and underscores, the first a letter or a "
                    f"digit; got {job.name!r}. Choose another name."
                )
            out = self.path_of(job)
            if not resume and out.exists():
                raise RunError(f"A new run needs a name that is free; {out} exists. Choose another name.")
            records = self.folder / _RECORDS
            try:
                records.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunError(
                    f"{records} cannot be made: {error.strerror}. Start the app in another folder."
                ) from None
            if not resume:
                write_json(records / f"{job.name}.json", asdict(job))
            goes_on = resume and (out / LOG).is_file()
            if resume and not goes_on:
                shutil.rmtree(out, ignore_errors=True)  # it had not come to its log
            arguments = [*job.arguments, "--resume"] if goes_on else job.arguments
            command = [sys.executable, "-m", "darec.background", str(records / "lock"), str(out), *arguments]
            packages = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
            with open(self._output(job), "wb") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(packages), "TQDM_DISABLE": "1"},
                    **_apart(),
                )
            self._job = job

    def stop(self) -> None:
        """Ask what runs to end; it does so within seconds, and `running` names it until then."""
        with self._guard:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()

    def running(self) -> Job | None:
        """What this app has begun and has not ended."""
        with self._guard:
            return self._job if self._process is not None and self._process.poll() is None else None

    def latest(self) -> Job | None:
        """What this app began last, whether or not it runs."""
        with self._guard:
            return self._job

    def is_stopping(self) -> bool:
        """Whether what runs was asked to end."""
        with self._guard:
            process = self._process
            return bool(process and process.poll() is None and process.stdin and process.stdin.closed)

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for what runs to end; returns its exit code, or None where nothing was begun.

        Raises:
            TimeoutError: it runs on after so many seconds.
        """
        if self._process is None:
            return None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"The job still runs after {seconds} s.") from None

    def unfinished(self) -> list[Job]:
        """Trainings that were stopped or failed, the newest first; they can go on, or be dropped."""
        paths = sorted((self.folder / _RECORDS).glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        jobs = [job for path in paths if (job := _read_job(path))]
        running = self.running()
        return [
            job
            for job in jobs
            if job != running and job.command == "train" and not (self.path_of(job) / MANIFEST).is_file()
        ]

    def drop(self, job: Job) -> None:
        """Delete what an unfinished job has left.

        Raises:
            RunError: it runs, in this app or in another one, or it is finished and a run to keep.
        """
        records = self.folder / _RECORDS
        records.mkdir(parents=True, exist_ok=True)
        with self._guard, open(records / "lock", "ab") as file:
            try:
                if self._process is not None and self._process.poll() is None:
                    raise OSError  # it may not have come to its lock
                lock(file)
            except OSError:
                raise RunError(
                    f"Nothing can be dropped while a job runs, and one does in {self.folder}. Stop it first."
                ) from None
            if (self.path_of(job) / MANIFEST).is_file():
                raise RunError(f"Only an unfinished run can be dropped, and {job.name} is finished. It is a run now.")
            shutil.rmtree(self.path_of(job), ignore_errors=True)
            for path in (records / f"{job.name}.json", self._output(job)):
                path.unlink(missing_ok=True)

    def complaint(self, job: Job) -> str | None:
        """The sentence with which a job failed; None where it was stopped, runs or has ended well."""
        last = next((line for line in reversed(self._printed(job)) if line.strip()), "")
        return last.removeprefix("Error: ") if last.startswith("Error: ") else None

    def stage_of(self, job: Job) -> "Standing":
        """How far a job is that prints its stages, as `quantize` does."""
        stages = [found for line in self._printed(job) if (found := _STAGE.fullmatch(line))]
        if not stages:
            return Standing("Preparing", 0.0, None)
        number, of, what = stages[-1].groups()
        return Standing(what[0].upper() + what[1:], (int(number) - 1) / int(of), None)

    def path_of(self, job: Job) -> Path:
        """The folder that a job makes."""
        return self.folder / job.name

    def events_of(self, job: Job) -> list[dict[str, Any]]:
        """What a training has logged so far."""
        return read_events(self.path_of(job) / LOG)

    def _output(self, job: Job) -> Path:
        return self.folder / _RECORDS / f"{job.name}.log"

    def _printed(self, job: Job) -> list[str]:
        try:
            return self._output(job).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []


def plan_training(split: Split, settings: Settings) -> dict[str, int]:
    """How long a training can become, in the order in which it comes.

    Returns:
        epochs of the CF model, `collaborative`, and of the short way by itself, `short way`; `epochs`, `steps` and
        `validations` of the joint training.
    """
    training = settings.training
    users = sum(len(history) > 1 for history in split.sample(training.users, seed=0).train)
    return {
        "collaborative": settings.collaborative.epochs if settings.collaborative.enabled else 0,
        "short way": settings.short_way.epochs if settings.sequence.skip else 0,
        "epochs": training.epochs,
        "steps": training.epochs * math.ceil(users / training.batch_size),
        "validations": math.ceil(training.epochs / training.validate_every),
    }


@dataclass(frozen=True)
class Standing:
    """How far a job is.

    Attributes:
        stage: what it does now, for people.
        share: of a training's stage, or of all stages of another job; 0 to 1.
        seconds_left: until the end of the joint training at the present pace; None while that is not known.
    """

    stage: str
    share: float
    seconds_left: float | None


def describe_progress(events: Sequence[Mapping[str, Any]], plan: Mapping[str, int]) -> Standing:
    """Where a training stands by its log.

    Args:
        events: from `read_events`.
        plan: from `plan_training`; an early stop can come before its end.
    """
    steps = [event for event in events if event["stage"] == "training"]
    if not steps:
        if not events:
            return Standing("Preparing", 0.0, None)
        stage = events[-1]["stage"]
        epochs, planned = sum(event["stage"] == stage for event in events), plan[stage]
        share = min(1.0, epochs / max(1, planned))
        if stage == "collaborative":
            return Standing(f"CF model first: epoch {epochs} of at most {planned}", share, None)
        return Standing(f"Short way (words past the language model): epoch {epochs} of {planned}", share, None)
    validations = [event["seconds"] for event in events if event["stage"] == "validation"]
    recent = sorted(event["seconds"] for event in steps[-50:])
    step = steps[-1]["step"]
    left = (plan["steps"] - step) * recent[len(recent) // 2]
    if validations:
        left += (plan["validations"] - len(validations)) * sum(validations) / len(validations)
    stage = f"Epoch {steps[-1]['epoch']} of {plan['epochs']}, step {step:,} of {plan['steps']:,}"
    return Standing(stage, min(1.0, step / max(1, plan["steps"])), max(0.0, left))


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a training log that are written whole; none where there is no log yet."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def _read_job(path: Path) -> Job | None:
    """A recorded job; None where the file is another's, or altered."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Job(content["name"], tuple(content["arguments"]), content["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _apart() -> dict[str, Any]:
    """How to start a process that Ctrl-C in the app's terminal does not reach: its pipe alone ends it."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _end_with_the_pipe(out: Path) -> None:
    """Wait until the pipe at standard input is closed, then interrupt the command."""
    while os.read(0, 1):  # not by `sys.stdin`: a thread that waits in it would crash the end of the process
        pass
    deadline = time.monotonic() + _GRACE
    # A checkpoint takes the place of the last one in two moves. This process must not end between them.
    while any(out.glob(".checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    _thread.interrupt_main()
    time.sleep(_GRACE)
    os._exit(130)


def main(arguments: Sequence[str]) -> None:
    """Run one command as a job: LOCK OUT COMMAND ..."""
    locked, out, *command = arguments
    if hasattr(os, "nice"):
        os.nice(10)  # pages come first
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that puts the app behind it has this ignored
    with open(locked, "ab") as file:
        try:
            lock(file)
        except OSError:
            print("Error: One job runs at a time, and another app has one in this folder. Wait for its end.")
            sys.exit(2)
        try:
            threading.Thread(target=_end_with_the_pipe, args=(Path(out),), daemon=True).start()
            from darec.cli import main as run_command

            run_command(command)
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1:])
