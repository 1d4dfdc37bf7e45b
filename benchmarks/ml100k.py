"""ML-100K from raw data to recommendations, DARec beside honest baselines: the README's table.

    python -m benchmarks.ml100k --data SOURCE --backbone NAME_OR_DIR --scratch DIR

prepares, trains, quantizes, evaluates and recommends, and writes benchmarks/results/ml-100k.json and the table in
README.md. It takes under 60 minutes on two CPU cores; `--quick` takes one or two, shows that every step works, and
records no more than its minutes. Steps already finished in the scratch folder, in `full/` or `quick/`, are not run
again; their time counts as they took it. They go on only with the same source, backbone and settings. Exit code 1 where
a floor is missed.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.documents import insert_results
from darec.baselines import NAMES as SHOWN
from darec.baselines import TRAINED_BY_GRADIENT, default_settings, write_baseline_run
from darec.config import load_settings
from darec.data.catalog import Catalog
from darec.data.interactions import Dataset
from darec.data.sources import prepare
from darec.errors import DarecError
from darec.evaluation.metrics import gains, hits, spell_mean
from darec.evaluation.protocol import compare_gains, compare_ranks, rank_cases, shuffle_test, summarize
from darec.runs import hold_to, provenance, read_run, write_json
from darec.serving import Recommender
from darec.training.loop import train
from darec.training.quantize import quantize_run

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "ml-100k.json"
QUICK_RESULTS = RESULTS.with_name("ml-100k-quick.json")
README = ROOT / "README.md"
SEEDS = (0, 1, 2)
FLOOR = {"hr@10": 0.2036, "ndcg@10": 0.1025}  # SASRec as an untuned reference reached it; seen items removed
QUICK_USERS = 100
QUICK = ("collaborative.epochs=2", "training.epochs=1")
BASELINES = ("sasrec_text", "gru4rec", "itemknn", "text_neighbours", "popularity")
TWIN = "DARec, random twin"
HISTORY = ("Toy Story", "Star Wars", "The Lion King", "A film that nobody has seen yet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="what `data prepare` takes: ml-100k, a zip, or a folder")
    parser.add_argument("--backbone", default="sentence-transformers/all-MiniLM-L6-v2", help="hub name or folder")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--quick", action="store_true", help="few users, one seed, one epoch; records its minutes")
    arguments = parser.parse_args()
    try:
        bench = Bench(arguments.scratch, arguments.data, arguments.backbone, arguments.quick)
    except DarecError as error:
        parser.error(str(error))
    bench.step("data", lambda folder: prepare_data(arguments.data, folder, arguments.quick))
    runs = bench.make_runs()
    start = time.perf_counter()
    results = bench.compare(runs)
    results["minutes"] = round((time.perf_counter() - start + sum(bench.seconds.values())) / 60, 1)
    print(json.dumps({name: results[name] for name in ("floors", "paired", "quantization", "minutes")}, indent=2))
    print(table(results))
    if arguments.quick:
        write_json(QUICK_RESULTS, {name: results[name] for name in ("minutes", "backbone", "provenance")})
        return
    write_json(RESULTS, results)
    insert_table(results)
    if not all(floor["met"] for floor in results["floors"].values()):
        sys.exit(1)


def prepare_data(source: str, folder: Path, quick: bool) -> None:
    """The normalised pair; of it only the first users and what they took when quick."""
    prepare(source, folder)
    if quick:
        dataset = Dataset.load(folder)
        rows, items = dataset.interactions, dataset.catalog.items
        rows = rows[rows["user_id"].isin(rows["user_id"].drop_duplicates()[:QUICK_USERS])].reset_index(drop=True)
        items = items[items["item_id"].isin(rows["item_id"])].reset_index(drop=True)
        Dataset(Catalog(items), rows).save(folder)


class Bench:
    """The runs of this benchmark in one scratch folder; those of a quick one lie apart, for they are no results.

    Raises:
        RunError: the folder was begun with another source, backbone or settings.
    """

    def __init__(self, scratch: Path, source: str, backbone: str, quick: bool):
        self.scratch, self.backbone, self.quick = scratch / ("quick" if quick else "full"), backbone, quick
        self.settings = load_settings("ml-100k", overrides=QUICK if quick else ())
        settings = {"darec": self.settings} | {name: default_settings(name) for name in TRAINED_BY_GRADIENT}
        plain = {name: each.model_dump(mode="json") for name, each in settings.items()}
        hold_to(self.scratch, {"source": source, "backbone": backbone, "settings": plain})
        self.data = self.scratch / "data"
        self._clock = self.scratch / "seconds.json"
        self.seconds: dict[str, float] = json.loads(self._clock.read_text()) if self._clock.is_file() else {}

    def step(self, name: str, make: Callable[[Path], Any]) -> Path:
        """Run a step unless it has been finished before."""
        folder = self.scratch / name
        if name not in self.seconds or not folder.is_dir():
            print(f"== {name}", file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            start = time.perf_counter()
            make(folder)
            self.seconds[name] = round(time.perf_counter() - start, 1)
            write_json(self._clock, self.seconds)
        return folder

    def make_runs(self) -> dict[str, Path]:
        """Every run, by its name in the table."""
        settings = self.settings
        twin = load_settings("ml-100k", overrides=("backbone.random_init=true",))
        runs: dict[str, Path] = {}
        of_baselines = settings.collaborative if self.quick else None  # None: what each was tuned to
        for seed in SEEDS[: 1 if self.quick else None]:
            runs[f"SASRec, seed {seed}"] = self._baseline("sasrec", seed, of_baselines)
        for name in BASELINES:
            runs[SHOWN[name]] = self._baseline(name, 0, of_baselines)
        runs["DARec"] = self.step(
            "darec", lambda folder: train(self.data, folder, settings, backbone=self.backbone, device="cpu")
        )
        runs["DARec, 4-bit"] = self.step("darec-4bit", lambda folder: quantize_run(runs["DARec"], folder))
        if not self.quick:
            runs[TWIN] = self.step(
                "twin", lambda folder: train(self.data, folder, twin, backbone=self.backbone, device="cpu")
            )
        return runs

    def compare(self, runs: dict[str, Path]) -> dict[str, Any]:
        """Evaluate every run on test, once, and compare."""
        rows: dict[str, Any] = {}
        ranks: dict[str, pd.DataFrame] = {}
        shuffled: dict[str, float] = {}
        for name, run in runs.items():
            print(f"== evaluate {name}", file=sys.stderr, flush=True)
            recommender = Recommender.load(run)
            ranks[name] = rank_cases(recommender.scorer, recommender.split, "test")
            ranks[name].to_parquet(run / "ranks-test.parquet", index=False)
            rows[name] = {
                "summary": summarize(ranks[name], recommender.catalog, recommender.split),
                "seconds": self.seconds[run.name],
                "bytes": weight_bytes(run),
                "validation": recommender.info["validation"],
            }
            if name == "DARec":
                shuffled = shuffle_test(recommender.scorer, recommender.split, "test", seed=0, ranks=ranks[name])
                shown = self._recommend(recommender)
        info = read_run(runs["DARec"])
        sasrec = [name for name in runs if name.startswith("SASRec, seed")]
        return {
            "rows": rows,
            "floors": floors(rows, ranks, sasrec, info),
            "paired": paired(ranks, sasrec),
            "shuffle_test": shuffled,
            "quantization": read_run(runs["DARec, 4-bit"])["quantization"],
            "recommendations": shown,
            "settings": info["settings"],
            "backbone": Path(self.backbone).name,
            "seeds": {"SASRec": list(SEEDS), "all others": [0]},
            "provenance": provenance("cpu"),
        }

    def _baseline(self, name: str, seed: int, settings: Any) -> Path:
        return self.step(
            f"{name}-{seed}",
            lambda folder: write_baseline_run(
                name, self.data, folder, seed=seed, settings=settings, backbone=self.backbone, on_epoch=print_epoch
            ),
        )

    def _recommend(self, recommender: Recommender) -> dict[str, Any]:
        entries: list[int | str] = [next(iter(recommender.catalog.find(title)), title) for title in HISTORY]
        found = recommender.recommend(entries, k=5)
        return {"history": HISTORY, "top": [(item.title, round(item.probability, 4)) for item in found]}


def paired(ranks: dict[str, pd.DataFrame], sasrec: list[str]) -> dict[str, dict[str, float]]:
    """NDCG@10 of one model minus another's, over the same users."""
    darec, four_bit = ranks["DARec"], ranks["DARec, 4-bit"]
    found = {
        f"DARec - {other}": compare_ranks(darec["rank"], ranks[other]["rank"])
        for other in (sasrec[0], *(SHOWN[name] for name in BASELINES), TWIN)
        if other in ranks
    }
    mean = np.mean([gains(ranks[name]["rank"].to_numpy(), 10) for name in sasrec], axis=0)
    found["DARec - SASRec, mean of seeds"] = compare_gains(gains(darec["rank"].to_numpy(), 10), mean)
    found["DARec - DARec, CF off"] = compare_ranks(darec["rank"], darec["rank_cf_off"])
    found["DARec, CF off - Popularity"] = compare_ranks(darec["rank_cf_off"], ranks[SHOWN["popularity"]]["rank"])
    found["DARec, 4-bit - DARec"] = compare_ranks(four_bit["rank"], darec["rank"])
    found["DARec, 4-bit, CF off - DARec, CF off"] = compare_ranks(four_bit["rank_cf_off"], darec["rank_cf_off"])
    if TWIN in ranks:
        twin_off = ranks[TWIN]["rank_cf_off"]
        found[f"DARec, CF off - {TWIN}, CF off"] = compare_ranks(darec["rank_cf_off"], twin_off)
    return found


def floors(
    rows: dict[str, Any], ranks: dict[str, pd.DataFrame], sasrec: list[str], info: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """What must hold: the baseline is strong, DARec is no worse than the CF model in it, and text alone carries."""
    checks: dict[str, dict[str, Any]] = {}
    for metric, values in (("hr@10", hits), ("ndcg@10", gains)):
        means = [rows[name]["summary"]["seen_removed"][metric]["mean"] for name in sasrec]
        by_user = values(ranks[sasrec[0]]["rank"].to_numpy(), 10)
        error = float(by_user.std(ddof=1) / np.sqrt(len(by_user)))
        checks[f"SASRec {metric}, mean of {len(sasrec)} seeds"] = {
            "value": float(np.mean(means)),
            "floor": FLOOR[metric],
            "standard_error": error,
            "met": float(np.mean(means)) >= FLOOR[metric] - error,
        }
    validation = info["validation"]
    checks["DARec validation ndcg@10, against the CF model in it"] = {
        "value": validation["ndcg@10"],
        "floor": validation["collaborative_alone_ndcg@10"],
        "met": validation["ndcg@10"] >= validation["collaborative_alone_ndcg@10"],
    }
    off = compare_ranks(ranks["DARec"]["rank_cf_off"], ranks[SHOWN["popularity"]]["rank"])
    checks["DARec, CF off, above popularity (paired ndcg@10)"] = {
        "value": off["difference"],
        "floor": 0.0,
        "met": off["low"] > 0,
    }
    return checks


def weight_bytes(run: Path) -> int:
    """Bytes of all weights that a run's model is made of."""
    return sum(path.stat().st_size for path in run.rglob("*.safetensors"))


def table(results: dict[str, Any]) -> str:
    """The README's table, in Markdown."""
    lines = [
        "| model | HR@10 | NDCG@10 | HR@10, seen kept | NDCG@10, seen kept | made in | weights |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in results["rows"].items():
        lines.append(_line(name, row, "seen_removed", "seen_kept"))
        if name.startswith("DARec"):
            lines.append(_line(f"{name}, CF off", row, "cf_off_seen_removed", "cf_off_seen_kept", same_run=True))
    return "\n".join(lines)


def _line(name: str, row: dict[str, Any], removed: str, kept: str, same_run: bool = False) -> str:
    cells = [
        spell_mean(row["summary"][ranking][metric]) for ranking in (removed, kept) for metric in ("hr@10", "ndcg@10")
    ]
    cells += ["", ""] if same_run else [f"{row['seconds']:.0f} s", f"{row['bytes'] / 1e6:.2f} MB"]
    return f"| {name} | {' | '.join(cells)} |"


def insert_table(results: dict[str, Any]) -> None:
    """Put the table and where it comes from between the README's marks."""
    made = results["provenance"]
    note = (
        f"{results['rows']['DARec']['summary']['users']} test users, the whole catalogue ranked, seen items removed "
        "unless said; in brackets the 95 % bootstrap interval over users; of the 4-bit run, the time is that of "
        f"quantizing. Made by `benchmarks/ml100k.py` on {made['date'][:10]} ({made['platform']}, {made['device']}, "
        f"torch {made['versions']['torch']}) in {results['minutes']:.0f} minutes; backbone {results['backbone']}; seed "
        "0 unless said. Everything else it measured, slices and paired differences among it, is in "
        "[ml-100k.json](benchmarks/results/ml-100k.json)."
    )
    insert_results(README, "ml-100k", f"{table(results)}\n\n{note}")


def print_epoch(event: dict[str, Any]) -> None:
    """A line on stderr for every epoch of a baseline."""
    print(json.dumps(event), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
