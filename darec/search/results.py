"""What a search found, from the files that it left in its run: plain tables, without the library that searched.

    search.json      space, objective, costs, the retrained architectures and the winner
    trials.parquet   one row a trial

The estimates here are pure functions of those tables.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from darec.errors import DataError, RunError
from darec.search.space import Architecture

SEARCH = "search.json"
TRIALS = "trials.parquet"
WARM_START, BAYESIAN, RANDOM = "warm start", "bayesian", "random"  # who proposed a trial
MATCHED = "uniform LoRA"  # label of the one that is trained alone, as large as what was chosen
SIZE_BINS = (8, 16, 32)  # sizes are compared in the classes 4-7, 8-15, 16-31, 32-64
BAND = (0.05, 0.5, 0.95)  # quantiles of the random control


@dataclass(frozen=True, eq=False)
class SearchResult:
    """A finished search.

    Attributes:
        trials: one row a trial: sampler (`warm start`, `bayesian` or `random`), number (order within its study),
            architecture (JSON, as `adapters.layers`), cross_entropy (nats, lower is better), ndcg@10, parameters,
            late_gate, seconds (of scoring), proposal_seconds, layers_reused, worker, each variable (`kind_0`).
        best_so_far: one row a trial of the search: trial (from 1), searched (lowest cross-entropy so far), and of
            random search with the same warm starts random_low, random_median, random_high (5, 50, 95 %), NaN where
            nothing was drawn at random.
        pareto: the trials of the search that none beats in both cross-entropy and parameters, fewest parameters first.
        importances: one row a variable: variable, explained (share of the variance of cross-entropy), trials.
        retrained: one row an architecture that was trained alone: label, architecture, parameters, cross_entropy and
            supernet_ndcg@10 (in the supernet; NaN where it was not scored), ndcg@10, ndcg@10_cf_off (of all validation
            users), epochs, seconds, winner (bool).
        summary: search.json as it is.
    """

    trials: pd.DataFrame
    best_so_far: pd.DataFrame
    pareto: pd.DataFrame
    importances: pd.DataFrame
    retrained: pd.DataFrame
    summary: dict[str, Any]

    @property
    def uniform(self) -> pd.DataFrame:
        """The warm starts: uniform LoRA of several sizes."""
        return self.trials[self.trials["sampler"] == WARM_START]

    @property
    def matched(self) -> pd.DataFrame:
        """The row of `retrained` of uniform LoRA that is as large as what was chosen; none where it has no score."""
        return self.retrained[(self.retrained["label"] == MATCHED) & self.retrained["cross_entropy"].notna()]


def load_search(run: Path) -> SearchResult:
    """Read what a search left in its run.

    Raises:
        RunError: the run comes from no search.
    """
    if not (run / SEARCH).is_file() or not (run / TRIALS).is_file():
        raise RunError(f"{run} comes from no search: it has no {SEARCH}. Name a run that `search` wrote.")
    return summarize_search(pd.read_parquet(run / TRIALS), json.loads((run / SEARCH).read_text(encoding="utf-8")))


def summarize_search(trials: pd.DataFrame, summary: dict[str, Any]) -> SearchResult:
    """Every table of a search from its trials and search.json."""
    searched = trials[trials["sampler"] != RANDOM].sort_values("number")
    pool = trials.loc[trials["sampler"] == RANDOM, "cross_entropy"].to_numpy()
    return SearchResult(
        trials=trials,
        best_so_far=best_so_far(searched, pool),
        pareto=pareto_front(searched),
        importances=importances(trials),
        retrained=pd.DataFrame(summary["retrained"]),
        summary=summary,
    )


def read_architecture(text: str) -> Architecture:
    """The architecture that a cell of a table holds as JSON."""
    return tuple(tuple(entries) for entries in json.loads(text))


def best_so_far(searched: pd.DataFrame, pool: np.ndarray) -> pd.DataFrame:
    """Lowest cross-entropy after each trial of a search, and of random searches with the same warm starts.

    Args:
        searched: warm starts and proposals in their order; columns sampler and cross_entropy.
        pool: [m] cross-entropies of random architectures; may be empty.

    Returns:
        As `SearchResult.best_so_far`.
    """
    values = searched["cross_entropy"].to_numpy(float)
    is_warm = (searched["sampler"] == WARM_START).to_numpy()
    table = pd.DataFrame({"trial": np.arange(1, len(values) + 1), "searched": np.minimum.accumulate(values)})
    warm = np.minimum.accumulate(np.where(is_warm, values, np.inf)) if len(values) else values
    band = random_band(pool, np.cumsum(~is_warm)) if len(pool) else np.full((len(values), 3), np.nan)
    for number, name in enumerate(("random_low", "random_median", "random_high")):
        table[name] = np.minimum(band[:, number], warm)
    return table


def random_band(pool: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Quantiles of the lowest of n values drawn from a pool with replacement, without drawing any.

    The lowest of n draws is above the k-th smallest of m values with probability (1 - k / m)^n, so its quantile q is
    the smallest of the pool's values for which 1 - (1 - k / m)^n >= q: what resampling the pool for ever would give.

    Args:
        pool: [m] float.
        draws: [B] int, n >= 0 for each row; infinite where n is 0.

    Returns:
        [B, 3]: quantiles 5, 50 and 95 %.
    """
    ordered, m = np.sort(pool), len(pool)
    reached = 1 - (1 - np.arange(1, m + 1) / m)[None] ** np.asarray(draws)[:, None]  # [B, m]
    band = np.full((len(draws), len(BAND)), np.inf)
    for number, quantile in enumerate(BAND):
        first = np.argmax(reached >= quantile, axis=1)
        band[:, number] = np.where(np.asarray(draws) > 0, ordered[first], np.inf)
    return band


def pareto_front(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that no other beats in one of cross-entropy and parameters and equals in the other; few first."""
    ordered = trials.sort_values(["parameters", "cross_entropy", "number"])
    best = ordered["cross_entropy"].cummin().shift(fill_value=np.inf)
    return ordered[ordered["cross_entropy"] < best].reset_index(drop=True)


def choose_best_few(front: pd.DataFrame, k: int) -> pd.DataFrame:
    """Up to k points of a Pareto front: the lowest cross-entropy, the knee, then by cross-entropy.

    The knee is the point farthest below the line between the front's ends, both axes scaled to 0..1.

    Args:
        front: from `pareto_front`, not empty.
        k: at least 1.
    """
    order = front["cross_entropy"].to_numpy().argsort(kind="stable").tolist()
    if len(front) > 2:
        x, y = (_scaled(front[name].to_numpy(float)) for name in ("parameters", "cross_entropy"))
        knee = int((x + y)[1:-1].argmin()) + 1  # ends are at (0, 1) and (1, 0)
        order.remove(knee)
        order.insert(1, knee)
    return front.iloc[order[:k]].reset_index(drop=True)


def importances(trials: pd.DataFrame) -> pd.DataFrame:
    """How much of the variance of cross-entropy each variable explains by itself.

    One-way analysis of variance, corrected for chance: with g classes, n trials and the sums of squares between (B),
    within (W) and in all (T), (B - (g - 1) W / (n - g)) / T, not below 0 (epsilon squared; Kelley, PNAS 1935). Kinds
    are classes; sizes are compared in four classes among trials in which the block has adapters. Interactions are not
    seen, so the shares need not sum to 1. Random trials alone are used where there are 30 or more: those of a search
    cluster where it looked, which mixes the variables.

    Returns:
        As `SearchResult.importances`.
    """
    random = trials[trials["sampler"] == RANDOM]
    chosen = random if len(random) >= 30 else trials
    rows = []
    for name in (column for column in trials.columns if column.startswith(("kind_", "size_"))):
        own = chosen
        classes = own[name]
        if name.startswith("size_"):
            own = chosen[chosen[name.replace("size", "kind")] != "none"]
            classes = pd.Series(np.digitize(own[name], SIZE_BINS), index=own.index)
        rows.append((name, explained_variance(own["cross_entropy"].to_numpy(float), classes.to_numpy()), len(own)))
    return pd.DataFrame(rows, columns=["variable", "explained", "trials"])


def explained_variance(values: np.ndarray, classes: np.ndarray) -> float:
    """Epsilon squared in 0..1 of [n] values in [n] classes; NaN where there are too few, or all values are equal."""
    groups = [values[classes == name] for name in pd.unique(classes)]
    total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
    if len(values) <= len(groups) or total == 0:
        return float("nan")
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    error = within / (len(values) - len(groups))
    return max(0.0, (total - within - (len(groups) - 1) * error) / total)


def rank_agreement(supernet: Sequence[float], alone: Sequence[float]) -> dict[str, float]:
    """Kendall's tau-b between the scores of the same architectures in the supernet and trained alone.

    Args:
        supernet: at least two, not all equal; higher must mean the same as in `alone`, better say.
        alone: in the same order.

    Returns:
        tau in -1..1, p of no association, and n.

    Raises:
        DataError: too few architectures, or as many scores of one as not of the other.
    """
    if len(supernet) != len(alone) or len(supernet) < 2:
        raise DataError(
            f"Agreement needs two scores of two architectures or more; got {len(supernet)} and {len(alone)}."
        )
    result = kendalltau(supernet, alone)
    return {"tau": float(result.statistic), "p": float(result.pvalue), "n": len(supernet)}


def _scaled(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())
