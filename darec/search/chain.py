"""A search from data to run: supernet, trials, retraining, choice.

Beside the run that is made, `RUN.search` holds what it is made from, so that each part is made once:

    request.json    what was asked for; a search goes on only with the same
    collaborative/  the CF model that all trainings begin from
    supernet/       the trained supernet
    trials.journal  all trials, unless they are stored elsewhere
    alone/NAME/     each retrained architecture, a run like any other
    lock            locked while a process searches here

The winner becomes RUN, with search.json and trials.parquet among its files. `RUN.search` may be deleted then.
"""

import hashlib
import json
import multiprocessing
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import wait
from pathlib import Path
from statistics import median_low
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from darec.config import ADAPTER_SIZES, Settings, parse_settings
from darec.data.interactions import Dataset, fingerprint
from darec.data.splits import split
from darec.errors import ConfigError, RunError
from darec.lock import lock
from darec.model.recommender import BACKBONE
from darec.runs import MANIFEST, REQUEST, hold_to, provenance, read_run, write_json, write_manifest, writing_folder
from darec.search.bayesian import drop_torn_line, finished, open_study, prepare_study, run_trials, trials_table
from darec.search.results import (
    BAYESIAN,
    MATCHED,
    RANDOM,
    SEARCH,
    TRIALS,
    choose_best_few,
    pareto_front,
    read_architecture,
)
from darec.search.space import Architecture, Space, read_space
from darec.search.supernet import Supernet, supernet_paths
from darec.training.loop import train
from darec.training.output import LOG
from darec.training.shared import SHARED

JOURNAL = "trials.journal"
SEARCHED = "searched"  # label of what the search found, numbered from its best by the supernet
OBJECTIVE = "cross-entropy of the item after the last one of each history, among those unseen, fixed validation users"


@dataclass(frozen=True)
class _Trials:
    """What a process needs to work on the trials of a search."""

    supernet: Path
    storage: Path
    space: Space
    users: int
    seed: int
    device: str
    targets: dict[str, int]  # study -> finished trials in the end

    def run(self, worker: int = 0, on_trial: Callable[[], None] = lambda: None) -> None:
        """Score until every study has its trials."""
        studies = {name: open_study(self.storage, name) for name in self.targets}
        if all(len(finished(study)) >= self.targets[name] for name, study in studies.items()):
            return
        supernet, parent = self._load(), multiprocessing.parent_process()

        def after_trial() -> None:
            if parent is not None and not parent.is_alive():
                sys.exit(1)  # nobody waits for more, and another search may have begun
            on_trial()

        for name, study in studies.items():
            run_trials(study, self.space, supernet.score, self.targets[name], self.seed, worker, after_trial)

    def score(self, architecture: Architecture) -> tuple[float, float]:
        """Cross-entropy and NDCG@10 of an architecture that no trial had, scored as trials are."""
        found = self._load().score(architecture)
        return found.cross_entropy, found.ndcg

    def _load(self) -> Supernet:
        return Supernet.load(self.supernet, self.space, self.users, self.seed, self.device)


def search(
    data: Path,
    out: Path,
    settings: Settings,
    *,
    backbone: str | None,
    trials: int,
    random_trials: int | None = None,
    users: int = 256,
    k: int = 3,
    retrain_epochs: int | None = None,
    workers: int = 1,
    storage: Path | None = None,
    kinds: Sequence[str] | None = None,
    max_size: int | None = None,
    seed: int = 0,
    resume: bool = False,
    device: str | None = None,
    shared: Path | None = None,
) -> Path:
    """Search adapters for every layer, and write the best retrained architecture as a run.

    Args:
        data: a folder with the normalised pair.
        out: the run to make.
        settings: everything but `adapters.layers`. Weights are gated unless they are static. No training stops early,
            and each keeps its last weights.
        backbone: hub name or folder; None where `settings.backbone.tiny`.
        trials: of the search, warm starts included.
        random_trials: of the random control; as many as `trials` if not given.
        users: fixed validation users that a trial is scored on.
        k: architectures of the Pareto front that are retrained.
        retrain_epochs: of each retrained architecture; those of the settings if not given.
        workers: processes that score.
        storage: the journal file, in `RUN.search` if not given.
        kinds: names of `space.KINDS` to choose from; all if not given.
        max_size: the largest size; 64, or the backbone's width where that is smaller, if not given.
        seed: of every draw.
        resume: go on where an interrupted search into `out` stopped; `trials` and `random_trials` may grow.
        device: `cpu`, `cuda`, or None for a GPU where there is one.
        shared: a folder of CF models, see `train`; in `RUN.search` if not given.

    Returns:
        `out`, a run with search.json and trials.parquet.

    Raises:
        DataError, ConfigError, BackboneError, RunError: with the remedy; no finished trial is lost.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    data, out = Path(data), Path(out)
    random_trials = trials if random_trials is None else random_trials
    least_of = {"trials": (trials, 1), "random trials": (random_trials, 0), "workers": (workers, 1)}
    least_of |= {"validation users": (users, 1), "retrained architectures": (k, 1)}
    for name, (value, least) in least_of.items():
        if value < least:
            raise ConfigError(f"The number of {name} must be at least {least}; got {value}.")
    if settings.adapters.layers is not None or not settings.adapters.enabled:
        raise ConfigError("A search chooses the adapters itself: leave adapters.layers and adapters.enabled out.")
    dataset = Dataset.load(data)
    split(dataset)  # data that cannot be trained on is refused here
    if settings.adapters.weights == "fixed":
        print("A search learns the adaption weights: they are gated here, not fixed.", file=sys.stderr, flush=True)
    settings = _searchable(settings)
    space = read_space(backbone, dataset.catalog, settings, seed, kinds, max_size)
    work = _work_of(out)
    request = {
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "data": fingerprint(data),
        "backbone": backbone or "tiny",
        "space": {"kinds": list(space.kinds), "max_size": space.max_size},
        "users": users,
        "storage": None if storage is None else str(Path(storage).resolve()),
        "retrain_epochs": retrain_epochs,
    }
    storage = storage or work / JOURNAL
    _check_work(out, work, storage, request, resume)

    start: dict[str, Any] = {"backbone": backbone, "seed": seed, "device": device, "shared": shared or work / SHARED}
    targets = {BAYESIAN: trials, RANDOM: random_trials}
    task = _Trials(work / "supernet", storage, space, users, seed, device, targets)
    with _alone_in(work):
        train_once(task.supernet, data, settings, paths=supernet_paths(space, seed), **start)
        table = _run_all(task, workers)

        def retrain(label: str, architecture: Architecture) -> dict[str, Any]:
            run = work / "alone" / _folder_name(architecture)
            train_once(run, data, settings_of(settings, architecture, retrain_epochs), **start)
            own = table[table["architecture"] == json.dumps(architecture)].head(1)
            loss, gain = own[["cross_entropy", "ndcg@10"]].iloc[0] if len(own) else task.score(architecture)
            info = read_run(run, verify=False)
            return {
                "label": label,
                "architecture": json.dumps(architecture),
                "parameters": space.parameters(architecture),
                "cross_entropy": float(loss),
                "supernet_ndcg@10": float(gain),
                "ndcg@10": info["validation"]["ndcg@10"],
                "ndcg@10_cf_off": info["validation"].get("ndcg@10_cf_off"),
                "epochs": info["epochs"],
                "seconds": info["seconds"],
                "run": run.relative_to(work).as_posix(),
            }

        found, drawn = _candidates(table, k)
        searched = [retrain(f"{SEARCHED} {number}", each) for number, each in enumerate(found, start=1)]
        # A control tells what a search is worth, and is not its find.
        winner = max(searched, key=lambda row: row["ndcg@10"])
        retrained = [
            *searched,
            retrain(MATCHED, space.matching_uniform(winner["parameters"])),
            *(retrain("random", each) for each in drawn),
        ]
        seconds = {
            "supernet": _undisturbed(task.supernet / LOG),
            "trial": _median(table["seconds"]),
            "proposal": _median(table.loc[table["sampler"] == BAYESIAN, "proposal_seconds"]),
        }
        summary = {
            "objective": OBJECTIVE,
            "users": users,
            "space": {
                "layers": space.num_layers,
                "layers_per_block": space.layers_per_block,
                "kinds": list(space.kinds),
                "sizes": [ADAPTER_SIZES[0], space.max_size],
                "variables": 2 * len(space.blocks),
            },
            "trials": {name: int(count) for name, count in table["sampler"].value_counts().items()},
            "seconds": seconds,
            "trial_share": (seconds["trial"] + seconds["proposal"]) / seconds["supernet"],
            "layers_reused": float(table["layers_reused"].mean()),
            "retrained": [{**row, "winner": row["label"] == winner["label"]} for row in retrained],
            "winner": winner["label"],
            "seed": seed,
            "provenance": {**provenance(device), "optuna": version("optuna")},
        }
        with writing_folder(out) as folder:
            shutil.copytree(work / winner["run"], folder, dirs_exist_ok=True)
            write_json(folder / SEARCH, summary)
            table.to_parquet(folder / TRIALS, index=False)
            write_manifest(folder)
    return out


def is_begun(out: Path) -> bool:
    """Whether a search into `out` was begun, so that it can go on."""
    return (_work_of(out) / REQUEST).is_file()


def equal_steps(settings: Settings) -> Settings:
    """The settings with no early stop and the last weights kept: each model is what as many steps have made of it."""
    training = settings.training.model_copy(update={"patience": settings.training.epochs, "keep": "last"})
    return settings.model_copy(update={"training": training})


def settings_of(settings: Settings, architecture: Architecture, epochs: int | None = None) -> Settings:
    """The settings under which an architecture is trained alone: so many epochs, none left out."""
    training = settings.training.model_copy(update={"epochs": epochs, "patience": epochs} if epochs else {})
    adapters = settings.adapters.model_copy(update={"layers": architecture})
    return settings.model_copy(update={"adapters": adapters, "training": training})


def _work_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.search")


def _searchable(settings: Settings) -> Settings:
    """Learned weights, and equal steps."""
    weights = "gated" if settings.adapters.weights == "fixed" else settings.adapters.weights
    adapters = settings.adapters.model_copy(update={"weights": weights})
    return equal_steps(settings.model_copy(update={"adapters": adapters}))


@contextmanager
def _alone_in(work: Path) -> Iterator[None]:
    """Keep a second search out: it would take the trials under way for those of a process that has ended."""
    with open(work / "lock", "ab") as file:
        try:
            lock(file)
        except OSError:
            raise RunError(f"A search works in {work} already. Wait for its end, or stop it.") from None
        yield


def _check_work(out: Path, work: Path, storage: Path, request: dict[str, Any], resume: bool) -> None:
    """Refuse what would be lost or mixed up, and note the request."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"The output folder must not exist yet: {out}. Choose another, or delete it first.")
    if resume and not (work / REQUEST).is_file():
        raise RunError(f"There is nothing to go on with at {work}. Leave --resume out to begin.")
    if not resume and work.exists():
        raise RunError(f"{work} holds an unfinished search or an old one. Add --resume to go on, or delete it first.")
    if not resume and storage.exists():
        raise RunError(f"{storage} holds the trials of another search. Name another --storage, or delete it first.")
    hold_to(work, request)
    storage.parent.mkdir(parents=True, exist_ok=True)


def train_once(run: Path, data: Path, settings: Settings, *, seed: int = 0, **arguments: Any) -> None:
    """Train unless that is done; go on if it was begun.

    Raises:
        RunError: the folder holds a run with other settings, of another seed, or of other data.
    """
    if (run / MANIFEST).is_file():
        info = read_run(run, verify=False)
        for name, same in (
            ("settings", parse_settings(info["settings"]) == settings),
            ("seed", info["seed"] == seed),
            ("data", info["data_fingerprint"] == fingerprint(data)),
        ):
            if not same:
                raise RunError(f"{run} was trained with other {name}. Choose another folder, or delete it first.")
    else:
        print(f"== {run.name}", file=sys.stderr, flush=True)
        begun = (run / LOG).is_file()
        if not begun:
            shutil.rmtree(run / BACKBONE, ignore_errors=True)  # all that an interruption before the log can leave
        train(data, run, settings, seed=seed, resume=begun, **arguments)


def _run_all(task: _Trials, workers: int) -> pd.DataFrame:
    """All trials in this process or in several, with a line that shows how far they are; one row a trial.

    Call it while no other process works on the studies.
    """
    drop_torn_line(task.storage)
    studies = {name: open_study(task.storage, name) for name in task.targets}
    warm_starts = [task.space.uniform(size) for size in task.space.uniform_sizes()]
    prepare_study(studies[BAYESIAN], task.space, warm_starts[: task.targets[BAYESIAN]])
    prepare_study(studies[RANDOM], task.space)
    done = {name: len(finished(study)) for name, study in studies.items()}
    total = sum(task.targets.values())
    with tqdm(desc="trials", total=total, initial=sum(done.values()), unit="trial", dynamic_ncols=True) as bar:

        def show() -> None:
            found = {name: [trial.values[0] for trial in finished(study)] for name, study in studies.items()}
            best = {name: f"{min(values):.4f}" for name, values in found.items() if values}
            bar.set_postfix({f"best {name}": value for name, value in best.items()}, refresh=False)
            bar.update(sum(map(len, found.values())) - bar.n)

        if workers == 1:
            task.run(on_trial=show)
        else:
            _run_workers(task, workers, show)
    return trials_table(list(studies.values()))


def _run_workers(task: _Trials, workers: int, show: Callable[[], None]) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=task.run, args=(number,), daemon=True) for number in range(workers)]
    try:
        for process in processes:
            process.start()
        running = {process.sentinel for process in processes}
        while running:
            running -= set(wait(list(running), timeout=1.0))
            show()
    finally:  # whatever ended it: none may work on when another search takes over
        for process in processes:
            process.terminate()
            process.join()
    failed = [process.exitcode for process in processes if process.exitcode]
    if failed:
        raise RunError(f"{len(failed)} of {workers} worker processes ended early. Go on with --resume.")


def _candidates(table: pd.DataFrame, k: int) -> tuple[list[Architecture], list[Architecture]]:
    """What trials say is to be retrained: the best few of the search, and the best random one if any was drawn."""
    searched = table[table["sampler"] != RANDOM]
    best = choose_best_few(pareto_front(searched), k)
    # As many draws as the search had trials; the rest of the pool only tells how far chance goes.
    drawn = table[table["sampler"] == RANDOM].sort_values("number").head(len(searched)).nsmallest(1, "cross_entropy")
    return [read_architecture(each) for each in best["architecture"]], [
        read_architecture(each) for each in drawn["architecture"]
    ]


def _median(seconds: pd.Series) -> float:
    """A pause of the machine in one trial says nothing about trials; 0 of none."""
    return round(float(seconds.median()), 4) if len(seconds) else 0.0


def _undisturbed(log: Path) -> float:
    """Seconds of a training by its log, every step of a stage as long as the median one, for the same reason."""
    stages: dict[str, list[float]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        stages.setdefault(event["stage"], []).append(event["seconds"])
    return round(sum(len(values) * median_low(values) for values in stages.values()), 1)


def _folder_name(architecture: Architecture) -> str:
    """Short, the same for the same architecture, and legal on every system."""
    return hashlib.sha256(json.dumps(architecture).encode()).hexdigest()[:12]
