"""Do the presets for first steps and for a class keep their time, and does the class see a model learn?

    python -m benchmarks.small_presets --data DIR [--data DIR]...

trains `smoke` and `classroom` on each prepared data set and writes benchmarks/results/small-presets.json: seconds,
the loss at both ends, every validation, and popularity on all users. Exit code 1 where smoke took over two minutes or
classroom over three, or where classroom's last validation without CF is not above its first one and popularity.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from darec.baselines import train_baseline
from darec.config import load_settings
from darec.data.interactions import Dataset
from darec.data.splits import split
from darec.evaluation.metrics import gains
from darec.evaluation.protocol import rank_cases
from darec.runs import provenance, write_json
from darec.training.loop import train
from darec.training.output import LOG

RESULTS = Path(__file__).parent / "results" / "small-presets.json"
LIMITS = {"smoke": 120.0, "classroom": 180.0}  # seconds
ENDS = 20  # steps averaged at either end of the loss
SHOWN = ("epoch", "ndcg@10", "ndcg@10_cf_off", "users")  # of a validation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="a prepared data set; repeatable")
    results = [measure(preset, data) for data in parser.parse_args().data for preset in LIMITS]
    write_json(RESULTS, {"trainings": results, "provenance": provenance("cpu")})
    print(json.dumps(results, indent=2))
    sys.exit(0 if all(all(each["met"].values()) for each in results) else 1)


def measure(preset: str, data: Path) -> dict[str, Any]:
    """Train one preset on one data set, with what it promises and whether it kept that."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = train(data, Path(folder) / "run", load_settings(preset), backbone=None, device="cpu")
        seconds = time.perf_counter() - start
        events: list[dict[str, Any]] = [json.loads(line) for line in (run / LOG).read_text("utf-8").splitlines()]
    losses = np.array([event["loss"] for event in events if event["stage"] == "training"])
    validations = [{name: event[name] for name in SHOWN} for event in events if event["stage"] == "validation"]
    dataset = Dataset.load(data)
    popularity = rank_cases(train_baseline("popularity", dataset), split(dataset), "valid")
    popular = float(gains(popularity["rank"].to_numpy(), 10).mean())
    cf_off = [each["ndcg@10_cf_off"] for each in validations]
    met = {"time": seconds <= LIMITS[preset]}
    if preset == "classroom":
        met["learns"] = cf_off[-1] > max(cf_off[0], popular)
    return {
        "preset": preset,
        "data": {"users": len(list(dataset.rows_by_user())), "items": len(dataset.catalog)},
        "seconds": round(seconds, 1),
        "limit": LIMITS[preset],
        "loss": {"first": float(losses[:ENDS].mean()), "last": float(losses[-ENDS:].mean()), "steps": len(losses)},
        "validation": validations,
        "popularity_ndcg@10": popular,
        "met": met,
    }


if __name__ == "__main__":
    main()
