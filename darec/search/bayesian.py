"""Proposing architectures: a Gaussian process that has seen all finished trials, or chance.

Two objectives, both to be small: the cross-entropy of `supernet.py`, and the trainable parameters of the architecture.
The sampler maximises the expected gain of the area that the Pareto front covers (Optuna's GPSampler); before ten trials
are finished it draws at random. Uniform LoRA of several sizes comes first.

Studies live in a journal file: several processes append to it and read what the others found, and whatever is finished
survives an interruption. Proposals depend on the seed and the finished trials alone, so that with one worker an
interrupted search goes on as it would have gone.
"""

import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from darec.config import ADAPTER_SIZES
from darec.search.results import BAYESIAN, RANDOM, WARM_START
from darec.search.space import Architecture, Space
from darec.search.supernet import Score

_LIVE = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING)
_SEEDS = {BAYESIAN: 0, RANDOM: 1}  # keep the draws of the two apart

optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_study(storage: Path, sampler: str) -> Study:
    """The study of a sampler, `bayesian` or `random`, in a journal file; both are made where they are missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # A lock that is a file works where symbolic links are not allowed.
        backend = JournalFileBackend(str(storage), lock_obj=JournalFileOpenLock(str(storage)))
        return optuna.create_study(
            storage=JournalStorage(backend),
            study_name=sampler,
            directions=["minimize", "minimize"],
            load_if_exists=True,
        )


def drop_torn_line(storage: Path) -> None:
    """Cut off a last line of a journal that was not written to its end, as a full disk or a power cut leaves it.

    What it would have said never happened; with more behind it no line of the journal could be read any more.
    """
    content = storage.read_bytes() if storage.is_file() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(storage, whole)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The variables of a space as Optuna has them."""
    found: dict[str, BaseDistribution] = {}
    for block in range(len(space.blocks)):
        found[f"kind_{block}"] = CategoricalDistribution(space.kinds)
        found[f"size_{block}"] = IntDistribution(ADAPTER_SIZES[0], space.max_size, log=True)
    return found


def prepare_study(study: Study, space: Space, warm_starts: Sequence[Architecture] = ()) -> None:
    """Queue what is to come first, and give up trials that were running when their process ended.

    Call it while no process works on the study.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    live = [trial.user_attrs.get("warm_start") for trial in study.get_trials(deepcopy=False, states=_LIVE)]
    for number, architecture in enumerate(warm_starts):
        if number not in live:
            study.enqueue_trial(space.params(architecture), user_attrs={"warm_start": number})


def run_trials(
    study: Study,
    space: Space,
    score: Callable[[Architecture], Score],
    trials: int,
    seed: int,
    worker: int = 0,
    on_trial: Callable[[], None] = lambda: None,
) -> None:
    """Propose and score until the study has so many trials, those of other processes included.

    Args:
        study: from `open_study`.
        space: what is searched.
        score: of an architecture.
        trials: finished ones in the end, warm starts included.
        seed: of proposals.
        worker: number of this process, so that no two propose the same.
        on_trial: called after each.
    """
    while len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))) < trials:
        start = time.perf_counter()
        study.sampler = _sampler(study, seed, worker)
        trial = study.ask(distributions(space))
        earlier = study.get_trials(deepcopy=False, states=_LIVE)[:trials]
        if trial.number not in [other.number for other in earlier]:  # another process took the last one
            study.tell(trial, state=TrialState.FAIL)
            break
        architecture = space.architecture(trial.params)
        proposal_seconds = time.perf_counter() - start
        found = score(architecture)
        for name, value in {
            "architecture": architecture,
            "ndcg@10": found.ndcg,
            "late_gate": found.late_gate,
            "seconds": found.seconds,
            "proposal_seconds": proposal_seconds,
            "layers_reused": found.layers_reused,
            "worker": worker,
        }.items():
            trial.set_user_attr(name, value)
        study.tell(trial, [found.cross_entropy, space.parameters(architecture)])
        on_trial()


def finished(study: Study) -> list[FrozenTrial]:
    """Its finished trials."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def trials_table(studies: Sequence[Study]) -> pd.DataFrame:
    """One row a finished trial of these studies; columns as `results.SearchResult.trials`."""
    return pd.DataFrame([_row(study.study_name, trial) for study in studies for trial in finished(study)])


def _row(sampler: str, trial: FrozenTrial) -> dict[str, Any]:
    own = dict(trial.user_attrs)
    cross_entropy, parameters = trial.values
    return {
        "sampler": WARM_START if own.pop("warm_start", None) is not None else sampler,
        "number": trial.number,
        "architecture": json.dumps(own.pop("architecture")),
        "cross_entropy": cross_entropy,
        "ndcg@10": own.pop("ndcg@10"),
        "parameters": int(parameters),
        **own,
        **trial.params,
    }


def _sampler(study: Study, seed: int, worker: int) -> BaseSampler:
    """A fresh sampler for the next proposal: its chance is a function of the seeds and how many trials there are."""
    sequence = [seed, worker, _SEEDS[study.study_name], len(study.get_trials(deepcopy=False, states=_LIVE))]
    own_seed = int(np.random.SeedSequence(sequence).generate_state(1)[0])
    if study.study_name == RANDOM:
        return RandomSampler(seed=own_seed)
    return GPSampler(seed=own_seed)
