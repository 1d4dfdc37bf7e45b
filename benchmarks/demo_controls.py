"""What the shipped DARec is held against beyond its card: other adapters, other weights, another seed, no pretraining.

    python -m benchmarks.demo_controls --scratch DIR [--only NAME]...

goes on in the scratch folder in which `rebuild-demo` made the shipped model, from the same backbone and with equal
steps: it takes the best random architecture and uniform LoRA of about the searched one's parameters as the search has
retrained them, and the training over random weights; trains the searched adapters with static weights, with equal
weights, with the term that keeps gated weights from collapsing, and from another seed; ranks the demo world's test
viewers with each; and writes them and how the shipped model's weights differ between kinds of viewers to
benchmarks/results/demo-controls.json and docs/search.md. All in full precision, the searched one too. What the result
has already is passed over unless it is named by --only; what the scratch folder has is not trained again. SIMULATED
viewers of real films.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.documents import insert_results
from benchmarks.searches import describe_weights, rank_test
from darec.background import LOG, read_events
from darec.config import Settings, parse_settings
from darec.data.interactions import Dataset
from darec.data.splits import COLD_BELOW
from darec.evaluation.metrics import gains, mean_with_interval, spell_difference, spell_mean
from darec.evaluation.protocol import compare_ranks
from darec.model.trained import WEIGHTS
from darec.rebuild import MINI
from darec.runs import provenance, read_run, sha256_of, write_json
from darec.search.chain import settings_of, train_once
from darec.search.results import MATCHED, load_search, read_architecture
from darec.search.space import read_space
from darec.training.shared import SHARED

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "assets" / "models" / "demo"
LAST_STEPS = 50  # whose mean losses are told
RESULTS = Path(__file__).resolve().parent / "results" / "demo-controls.json"
DOCUMENT = ROOT / "docs" / "search.md"
CONTROLS = {
    "random": "best random adapters of as many",
    "uniform": "uniform LoRA",
    "static": "searched, static weights",
    "fixed": "searched, fixed weights",
    "balanced": "searched, weights kept even",
    "seed": "searched, another seed",
    "twin": "searched, over random weights",
}
BALANCE_LOSS_WEIGHT = 1.0  # the term lies between 0 and about 1 nat here, beside losses of 15 in all
RETRAINED = {"random": "random", "uniform": MATCHED}  # control -> its label in the search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="in which the shipped model was made")
    parser.add_argument("--only", action="append", choices=CONTROLS, help="a control; repeatable; all unless given")
    arguments = parser.parse_args()
    scratch = arguments.scratch
    if load_search(scratch / "darec").summary != load_search(SHIPPED / "darec").summary:
        parser.error(f"{scratch} must be where the shipped model was made; its search is another.")
    seed = read_run(scratch / "darec", verify=False)["seed"]
    ranks = rank_test(scratch / "darec")
    results = read_results()
    searched, weights = about(scratch / "darec", scratch, ranks), describe_weights(SHIPPED / "darec")
    for name in arguments.only or [name for name in CONTROLS if name not in results["controls"]]:
        run = run_of(name, scratch)
        start = {"backbone": str(scratch / MINI), "device": "cpu", "shared": scratch / SHARED}
        train_once(run, scratch / "data", settings_for(name), seed=seed + (name == "seed"), **start)
        its = rank_test(run)
        ours, theirs = views_of(ranks), views_of(its)
        found = about(run, scratch, its) | {
            "searched minus it": {of: compare_ranks(ours[of], theirs[of]) for of in ours},
            "provenance": provenance("cpu"),
        }
        results = read_results()  # anew: another process may have added its own
        results |= {"searched": searched, "weights": weights, "controls": results["controls"] | {name: found}}
        write_json(RESULTS, results)
    table = describe(read_results())
    insert_results(DOCUMENT, "demo-controls", table)
    print(table)


def read_results() -> dict[str, Any]:
    """What is known so far of the model that is shipped now; of one that was shipped before, nothing."""
    shipped = sha256_of(SHIPPED / "darec" / WEIGHTS)
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    if known.get("shipped") == shipped:
        return known
    if known.get("controls"):
        print(f"Controls of a model that is no longer shipped are left out: {', '.join(known['controls'])}.")
    return {"shipped": shipped, "controls": {}}


def settings_for(name: str) -> Settings:
    """The shipped model's settings, but for what a control changes."""
    settings = parse_settings(read_run(SHIPPED / "darec")["settings"])
    if name in RETRAINED:
        rows = {row["label"]: row for row in load_search(SHIPPED / "darec").summary["retrained"]}
        row = rows[RETRAINED[name]]
        return settings_of(settings, read_architecture(row["architecture"]), row["epochs"])
    if name == "twin":
        return settings.model_copy(update={"backbone": settings.backbone.model_copy(update={"random_init": True})})
    changed = {"seed": {}, "balanced": {"balance_loss_weight": BALANCE_LOSS_WEIGHT}}.get(name, {"weights": name})
    return settings.model_copy(update={"adapters": settings.adapters.model_copy(update=changed)})


def run_of(name: str, scratch: Path) -> Path:
    """Where a control's run is, or is to be made."""
    if name in RETRAINED:
        rows = {row["label"]: row for row in load_search(scratch / "darec").summary["retrained"]}
        return scratch / "darec.search" / rows[RETRAINED[name]]["run"]
    return scratch / (name if name == "twin" else f"control-{name}")


def views_of(ranks: pd.DataFrame) -> dict[str, pd.Series]:
    """The ranks of all viewers, the same with CF off, and those of viewers who chose a late release."""
    late = ranks["target_popularity"] < COLD_BELOW
    return {"all": ranks["rank"], "CF off": ranks["rank_cf_off"], "late releases": ranks.loc[late, "rank"]}


def about(run: Path, scratch: Path, ranks: pd.DataFrame) -> dict[str, Any]:
    """Parameters of the adapters, and how the run ranks."""
    info = read_run(run, verify=False)
    settings = parse_settings(info["settings"])
    layers = settings.adapters.layers
    assert layers is not None  # all of them name their own
    catalog = Dataset.load(scratch / "data").catalog
    return {
        "parameters": read_space(str(scratch / MINI), catalog, settings).parameters(layers),
        "validation": info["validation"],
        "epochs": info["epochs"],
        "best_epoch": info["best_epoch"],  # whose weights were kept
        "unevenness": last_mean(run, "balance"),
        "losses": {name: last_mean(run, name) for name in ("next_item", "title", "mask")},
        "test_ndcg@10": {of: mean_with_interval(gains(each.to_numpy(), 10)) for of, each in views_of(ranks).items()},
        "seconds": info["seconds"],
    }


def last_mean(run: Path, name: str) -> float | None:
    """A part of the loss at the end of training, in nats; None where it has none.

    `balance` is how far mean weights are from equal, `title` and `mask` are what a word of a title costs.
    """
    steps = [event[name] for event in read_events(run / LOG) if name in event]
    return float(np.mean(steps[-LAST_STEPS:])) if steps else None


def describe(results: dict[str, Any]) -> str:
    """A table of what is finished, and where it comes from."""
    lines = [
        "| adapters | parameters | NDCG@10 | searched minus it | the same, CF off | the same, late releases |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    searched = results["searched"]
    mean = spell_mean(searched["test_ndcg@10"]["all"])
    lines.append(f"| searched | {searched['parameters']:,} | {mean} | | | |")
    controls = {name: results["controls"][name] for name in CONTROLS if name in results["controls"]}
    for name, row in controls.items():
        cells = [f"{row['parameters']:,}", spell_mean(row["test_ndcg@10"]["all"])]
        cells += map(spell_difference, row["searched minus it"].values())
        lines.append(f"| {CONTROLS[name]} | {' | '.join(cells)} |")
    made = max((row["provenance"] for row in controls.values()), key=lambda made: made["date"])
    lines += [
        "",
        "Demo world (simulated viewers), test NDCG@10, seen films removed, one seed unless said, with 95 % bootstrap "
        "intervals over viewers; all in full precision, each trained alone for as many steps, from the same backbone "
        f"but for the one over random weights. Made by `benchmarks/demo_controls.py` on {made['date'][:10]} "
        f"({made['platform']}, {made['device']}, torch {made['versions']['torch']}); more in "
        "[demo-controls.json](../benchmarks/results/demo-controls.json).",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
