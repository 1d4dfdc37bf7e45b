"""Studies over an invented score, whose best architecture is known."""

import math
import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from darec.search.bayesian import open_study, prepare_study, run_trials, trials_table
from darec.search.results import RANDOM, best_so_far, pareto_front
from darec.search.space import Architecture, Space
from darec.search.supernet import Score

SPACE = Space(width=64, map_widths=((512, 576),) * 2, gate_inputs=80)
FOUR = Space(width=64, map_widths=((512, 576),) * 4, gate_inputs=80)
KIND_WORTHS = (
    {"serial": 0.6, "mlp+serial": 0.3},
    {"attention": 0.6, "attention+mlp": 0.3, "attention+parallel": 0.3},
)


def planted(architecture: Architecture) -> Score:
    """Best are, by turns, a serial bottleneck of about 10 and LoRA on attention of about 30."""
    params = (SPACE if len(architecture) == 2 else FOUR).params(architecture)
    value = 4.0
    for block in range(len(architecture)):
        worth = KIND_WORTHS[block % 2].get(str(params[f"kind_{block}"]), 0.0)
        value -= worth * math.exp(-(math.log(int(params[f"size_{block}"]) / (10, 30)[block % 2]) ** 2))
    return Score(value, 1 / value, 1.0, 0.0, 0.0)


def run_study(path: Path, name: str, trials: int, score=planted, seed: int = 0, space: Space = SPACE) -> pd.DataFrame:
    study = open_study(path, name)
    prepare_study(study, space, [space.uniform(size) for size in (8, 32)] if name != RANDOM else ())
    run_trials(study, space, score, trials, seed)
    return trials_table([study])


@pytest.mark.slow
def test_planted_optimum_is_found_better_than_by_chance_with_equal_budget(tmp_path: Path):
    searched = run_study(tmp_path / "journal", "bayesian", 28, space=FOUR)
    pool = run_study(tmp_path / "journal", "random", 120, space=FOUR)["cross_entropy"].to_numpy()
    table = best_so_far(searched, pool)
    assert table["searched"].iloc[-1] < table["random_median"].iloc[-1] - 0.2
    assert table["searched"].iloc[-1] < table["searched"].iloc[9] - 0.3  # and not by its random beginning
    front = pareto_front(searched)
    assert len(front) >= 3
    assert front["cross_entropy"].is_monotonic_decreasing


def test_warm_starts_come_first_and_a_row_holds_what_was_found(tmp_path: Path):
    table = run_study(tmp_path / "journal", "bayesian", 4)
    assert table["sampler"].tolist() == ["warm start", "warm start", "bayesian", "bayesian"]
    first = table.iloc[0]
    assert first["architecture"] == '[["lora_attention:8", "lora_mlp:8"], ["lora_attention:8", "lora_mlp:8"]]'
    assert first["parameters"] == SPACE.parameters(SPACE.uniform(8))
    assert first["cross_entropy"] == planted(SPACE.uniform(8)).cross_entropy
    assert (first["kind_1"], first["size_1"]) == ("attention+mlp", 8)
    np.testing.assert_allclose(table["ndcg@10"], 1 / table["cross_entropy"])


def test_an_interrupted_study_goes_on_as_it_would_have_without_losing_a_trial(tmp_path: Path):
    class Interruption(BaseException):
        pass

    calls = []

    def score_or_stop(architecture: Architecture) -> Score:
        calls.append(architecture)
        if len(calls) > 6:
            raise Interruption
        return planted(architecture)

    columns = ["sampler", "architecture", "cross_entropy", "parameters"]
    for name in ("bayesian", "random"):
        calls.clear()
        with pytest.raises(Interruption):
            run_study(tmp_path / "journal", name, 11, score_or_stop)
        before = trials_table([open_study(tmp_path / "journal", name)])
        after = run_study(tmp_path / "journal", name, 11)
        assert len(before) == 6
        pd.testing.assert_frame_equal(after[columns].head(6), before[columns])
        assert len(after) == 11
        pd.testing.assert_frame_equal(after[columns], run_study(tmp_path / "whole", name, 11)[columns])


def test_an_interrupted_warm_start_is_scored_in_the_end(tmp_path: Path):
    def stop(architecture: Architecture) -> Score:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(tmp_path / "journal", "bayesian", 4, stop)
    table = run_study(tmp_path / "journal", "bayesian", 4)
    assert table.loc[table["sampler"] == "warm start", "size_0"].tolist() == [32, 8]


def test_other_seeds_draw_others(tmp_path: Path):
    one, other = (run_study(tmp_path / f"{seed}", "random", 5, seed=seed) for seed in (0, 1))
    assert one["architecture"].tolist() != other["architecture"].tolist()


def work(path: Path, worker: int, barrier: Barrier) -> None:
    study = open_study(path, "random")
    waited = []

    def score(architecture: Architecture) -> Score:
        if not waited:
            waited.append(barrier.wait(timeout=120))  # so that both are at work at the same time
        return planted(architecture)

    run_trials(study, SPACE, score, 9, 0, worker)


def test_two_processes_share_a_study_and_do_exactly_what_was_asked(tmp_path: Path):
    path = tmp_path / "journal"
    prepare_study(open_study(path, "random"), SPACE)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=work, args=(path, worker, barrier)) for worker in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=240)
    assert [process.exitcode for process in processes] == [0, 0]
    table = trials_table([open_study(path, "random")])
    assert len(table) == 9
    assert set(table["worker"]) == {0, 1}
    assert table["architecture"].nunique() == 9
