"""How much of the late releases' ranks is knowing the time? DARec with and without it, and baselines that are given it.

    python -m benchmarks.late_releases --runs DIR

ranks the demo world's test viewers by the runs `darec-4bit`, `text_neighbours` and `sasrec_text` in DIR, which
`rebuild-demo` leaves in its scratch folder, and writes benchmarks/results/late-releases.json. The baselines' scores of
new films get the same lift as DARec's, c s exp(-(newest - asked) / tau), with s the standard deviation of their scores;
c and tau are what ranks best on validation. SIMULATED viewers of real films.
"""

import argparse
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from darec.data.splits import COLD_BELOW, Cases
from darec.evaluation.metrics import gains, mean_with_interval, rank_of, spell_difference, spell_mean
from darec.evaluation.protocol import compare_gains
from darec.model.recommender import DarecModel, nearness
from darec.runs import provenance, write_json
from darec.serving import Recommender
from darec.training.tuning import COLD_DAYS, COLD_PRIORS

RESULTS = Path(__file__).resolve().parent / "results" / "late-releases.json"
BASELINES = ("text_neighbours", "sasrec_text")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder that holds the runs")
    folder = parser.parse_args().runs
    darec = Recommender.load(folder / "darec-4bit")
    parts = darec.split
    model = cast(DarecModel, darec.scorer)
    newest = float(asked_at(parts.valid).max())
    gain = {name: gains(ranks, 10) for name, ranks in rank_with_and_without_time(model, parts.test).items()}
    lifts: dict[str, Any] = {"darec": {"c": model.cold_prior.item(), "tau_days": model.cold_days.item()}}
    for name in BASELINES:
        scorer = Recommender.load(folder / name).scorer
        valid, test = (
            np.concatenate([scorer.score([h.tolist() for h in batch.histories]) for batch in cases.batches(64)])
            for cases in (parts.valid, parts.test)
        )
        gain[name] = gains(rank_of(test, parts.test.targets, parts.test.histories), 10)
        scale = float(valid[np.isfinite(valid)].std())
        lift, days = choose_lift(valid / scale, parts.valid, newest, parts.new_items)
        lifts[name] = {"c": lift, "tau_days": days if np.isfinite(days) else None, "s": scale}
        lifted = test / scale + lift * near_newest(parts.test, newest, days) * parts.new_items
        gain[f"{name}, told the time"] = gains(rank_of(lifted, parts.test.targets, parts.test.histories), 10)
    late = parts.popularity[parts.test.targets] < COLD_BELOW
    results = {
        "users": {"all": len(late), "late releases": int(late.sum())},
        "lifts": lifts,
        "ndcg@10": {
            name: {"all": mean_with_interval(values), "late releases": mean_with_interval(values[late])}
            for name, values in gain.items()
        },
        "darec minus": {
            name: {
                "all": compare_gains(gain["darec"], values),
                "late releases": compare_gains(gain["darec"][late], values[late]),
            }
            for name, values in gain.items()
            if name != "darec"
        },
        "provenance": provenance("cpu"),
    }
    write_json(RESULTS, results)
    print(table(results))


@torch.no_grad()
def rank_with_and_without_time(model: DarecModel, cases: Cases) -> dict[str, np.ndarray]:
    """[users] ranks of DARec asked at the time, asked on the newest day by all (`asked now`), and without any lift."""
    lift = (model.cold_prior / model.temperatures[1] * model.cold).numpy()
    newest, days = model.newest.item(), model.cold_days.item()
    ranks: dict[str, list[np.ndarray]] = {"darec": [], "darec, asked now": [], "darec, never lifted": []}
    for batch in cases.batches(64):
        histories = [history.tolist() for history in batch.histories]
        near = near_newest(batch, newest, days)
        scores = model.asked(asked_at(batch)).score(histories)
        variants = (scores, scores + (1 - near) * lift, scores - near * lift)
        for found, own in zip(ranks.values(), variants, strict=True):
            found.append(rank_of(own, batch.targets, batch.histories))
    return {name: np.concatenate(found) for name, found in ranks.items()}


def choose_lift(scores: np.ndarray, cases: Cases, newest: float, new_items: np.ndarray) -> tuple[float, float]:
    """c and tau of a baseline whose scores have standard deviation 1: what ranks best on validation."""
    values = {}
    for days in COLD_DAYS:
        unit = near_newest(cases, newest, days) * new_items
        for lift in COLD_PRIORS:
            ranks = rank_of(scores + lift * unit, cases.targets, cases.histories)
            values[lift, days] = gains(ranks, 10).mean()
    return max(values, key=lambda key: values[key])


def asked_at(cases: Cases) -> np.ndarray:
    """[cases] when each was asked, in seconds."""
    assert cases.asked is not None  # the demo world has dates
    return cases.asked


def near_newest(cases: Cases, newest: float, days: float) -> np.ndarray:
    """[cases, 1] in 0..1: how near the newest validation question each is asked, as DARec reckons it."""
    return nearness(torch.tensor(newest, dtype=torch.float64), torch.from_numpy(asked_at(cases)), days).numpy()


def table(results: dict[str, Any]) -> str:
    """What was found, in Markdown."""
    rows = []
    for name, figures in results["ndcg@10"].items():
        cells = [spell_mean(figures[which]) for which in ("all", "late releases")]
        minus = results["darec minus"].get(name, {}).get("late releases")
        cells.append(spell_difference(minus) if minus else "")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    head = "| who ranks | NDCG@10, all | late releases | DARec minus it, late releases |"
    return "\n".join([head, "| --- | --- | --- | --- |", *rows, "", json.dumps(results["lifts"])])


if __name__ == "__main__":
    main()
