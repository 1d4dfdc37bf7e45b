"""The demo world's ceiling, and how near to it the baselines come. SIMULATED viewers of real films.

    python -m benchmarks.demo_world --backbone NAME_OR_DIR --scratch DIR

makes the world, trains the baselines, ranks with them and with the oracle, which knows what each viewer likes, and
writes benchmarks/results/demo-world.json. Runs already finished in the scratch folder are not trained again. Exit code
1 where SASRec reaches 75 % of the ceiling: such a world would be too easy to tell recommenders apart.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from darec.baselines import default_settings, write_baseline_run
from darec.data.demo.freeze import WORLD
from darec.data.demo.truth import Oracle, Truth
from darec.data.interactions import NOTE, Dataset
from darec.data.sources import prepare
from darec.data.splits import COLD_BELOW, Split, SplitName, split
from darec.evaluation.metrics import gains, mean_with_interval, spell_mean
from darec.evaluation.protocol import Scorer, compare_ranks, rank_cases, summarize
from darec.runs import RUN, provenance, read_run, write_json
from darec.serving import Recommender

RESULTS = Path(__file__).resolve().parent / "results" / "demo-world.json"
BASELINES = ("popularity", "itemknn", "text_neighbours", "sasrec", "sasrec_text")
CEILING = "ceiling"
MAX_ITEMS = 50  # read by models trained by gradient; viewers watch 19 in the median, 80 at most
TOO_EASY = 0.75  # of the ceiling
PAIRS = (
    (CEILING, "sasrec"),
    ("sasrec", "popularity"),
    ("sasrec", "itemknn"),
    ("sasrec_text", "sasrec"),
    ("text_neighbours", "popularity"),
)
SPLITS: tuple[SplitName, ...] = ("valid", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="sentence-transformers/all-MiniLM-L6-v2", help="hub name or folder")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for data and runs")
    arguments = parser.parse_args()
    data = arguments.scratch / "data"
    if not (data / NOTE).is_file():
        prepare("demo", data)
    for name in BASELINES:
        train(name, data, arguments.scratch / name, arguments.backbone)
    results = compare(data, arguments.scratch, Path(arguments.backbone).name)
    RESULTS.parent.mkdir(exist_ok=True)
    write_json(RESULTS, results)
    print(table(results))
    if not results["sasrec_below_75_percent_of_the_ceiling"]:
        sys.exit(1)


def train(name: str, data: Path, run: Path, backbone: str) -> None:
    """One baseline, with the settings it was given on other data, unless its run is there."""
    if not (run / RUN).is_file():
        print(f"== {name}", file=sys.stderr, flush=True)
        settings = default_settings(name).model_copy(update={"max_items": MAX_ITEMS})
        write_baseline_run(name, data, run, settings=settings, backbone=backbone, on_epoch=print_epoch)


def compare(data: Path, scratch: Path, backbone: str) -> dict[str, Any]:
    """Rank every viewer's validation and test film with everyone, and hold the results against each other."""
    dataset = Dataset.load(data)
    parts, truth = split(dataset), Truth.load(data)
    world = json.loads(WORLD.read_text(encoding="utf-8"))
    ranks = {CEILING: rank_both(Oracle(truth), parts)}
    rows: dict[str, Any] = {}
    for name in BASELINES:
        print(f"== evaluate {name}", file=sys.stderr, flush=True)
        ranks[name] = rank_both(Recommender.load(scratch / name).scorer, parts)
    means = {part: {name: ndcg_by_viewer(both[part]).mean() for name, both in ranks.items()} for part in SPLITS}
    for name, both in ranks.items():
        rows[name] = {
            "valid_ndcg@10": mean_with_interval(ndcg_by_viewer(both["valid"])),
            "test": summarize(both["test"], dataset.catalog, parts),
            "share_of_ceiling": {part: float(means[part][name] / means[part][CEILING]) for part in SPLITS},
            "seconds": None if name == CEILING else read_run(scratch / name)["seconds"],
        }
    late = truth.stage.released >= world["rules"]["days"] - world["rules"]["late_days"]
    return {
        "note": world["note"],
        "world": {key: world[key] for key in ("version", "seed", "viewers", "films", "interactions_sha256")},
        "rows": rows,
        "paired_ndcg@10": {
            f"{a} - {b}": {part: compare_ranks(ranks[a][part]["rank"], ranks[b][part]["rank"]) for part in SPLITS}
            for a, b in PAIRS
        },
        "late_releases": late_releases(late & (parts.popularity < COLD_BELOW), ranks),
        "sasrec_below_75_percent_of_the_ceiling": rows["sasrec"]["share_of_ceiling"]["test"] < TOO_EASY,
        "backbone": backbone,
        "seed": 0,
        "provenance": provenance("cpu"),
    }


def rank_both(scorer: Scorer, parts: Split) -> dict[SplitName, pd.DataFrame]:
    """The rank files of both parts."""
    return {part: rank_cases(scorer, parts, part) for part in SPLITS}


def late_releases(cold: np.ndarray, ranks: dict[str, dict[SplitName, pd.DataFrame]]) -> dict[str, Any]:
    """How the late releases that nobody, or next to nobody, watched in training are ranked.

    Args:
        cold: [N] bool, the late releases with fewer than five training interactions.
        ranks: by name and part.
    """
    test = {name: both["test"] for name, both in ranks.items()}
    asked = cold[test[CEILING]["target"].to_numpy()]
    return {
        "films": int(cold.sum()),
        "test_targets": int(asked.sum()),
        "ndcg@10": {name: mean_with_interval(ndcg_by_viewer(of)[asked]) for name, of in test.items()},
        "mrr": {name: mean_with_interval(1 / of["rank"].to_numpy()[asked]) for name, of in test.items()},
    }


def ndcg_by_viewer(ranks: pd.DataFrame) -> np.ndarray:
    """[viewers] float: each viewer's share in NDCG@10, seen films removed."""
    return gains(ranks["rank"].to_numpy(), 10)


def table(results: dict[str, Any]) -> str:
    """What was found, in Markdown."""
    lines = [
        "| who ranks | NDCG@10, validation | NDCG@10, test | of the ceiling | late releases |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in results["rows"].items():
        cells = (row["valid_ndcg@10"], row["test"]["seen_removed"]["ndcg@10"])
        valid, test = map(spell_mean, cells)
        late = spell_mean(results["late_releases"]["ndcg@10"][name])
        lines.append(f"| {name} | {valid} | {test} | {row['share_of_ceiling']['test']:.0%} | {late} |")
    return "\n".join(lines)


def print_epoch(event: dict[str, Any]) -> None:
    """A line on stderr for every epoch of a baseline."""
    print(json.dumps(event), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
