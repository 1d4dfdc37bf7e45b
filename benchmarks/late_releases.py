"""How much of the late releases' ranks is knowing the time? DARec with and without it, and baselines that are given it.

    python -m benchmarks.late_releases --runs DIR

ranks the demo world's test viewers by the runs `darec-4bit`, `text_neighbours` and `sasrec_text` in DIR, which
`rebuild-demo` leaves in its scratch folder, and writes benchmarks/results/late-releases.json and its table into
docs/demo-world.md. The baselines' scores of new films get the same lift as DARec's, c s exp(-age / tau), with s the
standard deviation of their scores; c and tau are what ranks best on validation. SIMULATED viewers of real films.
"""

import argparse
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from benchmarks.documents import insert_results
from darec.data.splits import COLD_BELOW, Cases, Split
from darec.evaluation.metrics import gains, mean_with_interval, rank_of, spell_difference, spell_mean
from darec.evaluation.protocol import compare_gains
from darec.model.recommender import DarecModel, newness
from darec.runs import provenance, write_json
from darec.serving import Recommender
from darec.training.tuning import COLD_DAYS, COLD_PRIORS, read_cases

RESULTS = Path(__file__).resolve().parent / "results" / "late-releases.json"
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "demo-world.md"
SHOWN = {
    "darec": "DARec",
    "darec, asked now": "DARec, told the newest day for all",
    "darec, never lifted": "DARec, new films never lifted",
    "text_neighbours": "text neighbours",
    "text_neighbours, told the time": "text neighbours, told the day",
    "sasrec_text": "SASRec with text",
    "sasrec_text, told the time": "SASRec with text, told the day",
}
BASELINES = ("text_neighbours", "sasrec_text")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder that holds the runs")
    folder = parser.parse_args().runs
    darec = Recommender.load(folder / "darec-4bit")
    parts = darec.split
    model = cast(DarecModel, darec.scorer)
    if not torch.isfinite(model.cold_days):
        parser.error("DARec must lift new films for a time, so that it lifts none when it is asked at no known time.")
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
        lift, days = choose_lift(valid / scale, parts)
        lifts[name] = {"c": lift, "tau_days": days if np.isfinite(days) else None, "s": scale}
        lifted = test / scale + lift * how_new(parts.test, parts, days)
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
    insert_results(DOCUMENT, "late-releases", describe(results))
    print(describe(results), json.dumps(lifts), sep="\n\n")


@torch.no_grad()
def rank_with_and_without_time(model: DarecModel, cases: Cases) -> dict[str, np.ndarray]:
    """[users] ranks of DARec asked at the time, asked on the newest day by all (`asked now`), and without any lift."""
    ranks: dict[str, list[np.ndarray]] = {"darec": [], "darec, asked now": [], "darec, never lifted": []}
    for batch, encoded in read_cases(model, cases, 64):
        for found, asked in zip(ranks.values(), (asked_at(batch), model.newest.item(), None), strict=True):
            scores = model.asked(asked).score_terms(encoded).total().numpy()
            found.append(rank_of(scores, batch.targets, batch.histories))
    return {name: np.concatenate(found) for name, found in ranks.items()}


def choose_lift(scores: np.ndarray, parts: Split) -> tuple[float, float]:
    """c and tau of a baseline whose scores have standard deviation 1: what ranks best on validation."""
    values = {}
    for days in COLD_DAYS:
        unit = how_new(parts.valid, parts, days)
        for lift in COLD_PRIORS:
            ranks = rank_of(scores + lift * unit, parts.valid.targets, parts.valid.histories)
            values[lift, days] = gains(ranks, 10).mean()
    return max(values, key=lambda key: values[key])


def asked_at(cases: Cases) -> np.ndarray:
    """[cases] float64: when each was asked, in seconds."""
    assert cases.asked is not None  # the demo world has dates
    return cases.asked.astype(np.float64)


def how_new(cases: Cases, parts: Split, days: float) -> np.ndarray:
    """[cases, N] in 0..1: how new each new item is to each question, as DARec reckons it."""
    asked, known = torch.from_numpy(asked_at(cases)), torch.from_numpy(parts.popularity > 0)
    newest = torch.tensor(asked_at(parts.valid).max())
    return newness(asked, torch.tensor(parts.first_taken), known, newest, days).numpy() * parts.new_items


def describe(results: dict[str, Any]) -> str:
    """A table of what was found, and where it comes from."""
    users = results["users"]
    lines = [
        f"| who ranks | NDCG@10, all {users['all']:,} viewers | the {users['late releases']} late releases | "
        "DARec minus it, late releases |",
        "| --- | --- | --- | --- |",
    ]
    for name, figures in results["ndcg@10"].items():
        cells = [spell_mean(figures[which]) for which in ("all", "late releases")]
        minus = results["darec minus"].get(name, {}).get("late releases")
        lines.append(f"| {SHOWN[name]} | {' | '.join([*cells, spell_difference(minus) if minus else ''])} |")
    made = results["provenance"]
    lines += [
        "",
        "Demo world (simulated viewers), test, seen films removed, one seed, with 95 % bootstrap intervals over "
        f"viewers. Made by `benchmarks/late_releases.py` on {made['date'][:10]} ({made['platform']}, {made['device']}, "
        f"torch {made['versions']['torch']}); lifts and more in "
        "[late-releases.json](../benchmarks/results/late-releases.json).",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
