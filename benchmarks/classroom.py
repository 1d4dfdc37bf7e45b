"""Does the training that a class watches visibly learn, and how long does it take?

    python -m benchmarks.classroom --data DIR

trains the classroom preset on a prepared data set, ML-100K say, and writes benchmarks/results/classroom.json: seconds,
the loss at both ends, every validation, and popularity on all users. Exit code 1 where it took over three minutes,
or where the last validation without CF is not above the first one and above popularity.
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

RESULT = Path(__file__).parent / "results" / "classroom.json"
LIMIT = 180.0  # seconds
ENDS = 20  # steps averaged at either end of the loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a prepared data set")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = train(arguments.data, Path(folder) / "run", load_settings("classroom"), backbone=None, device="cpu")
        seconds = time.perf_counter() - start
        events: list[dict[str, Any]] = [json.loads(line) for line in (run / LOG).read_text("utf-8").splitlines()]
    losses = np.array([event["loss"] for event in events if event["stage"] == "training"])
    validations = [event for event in events if event["stage"] == "validation"]
    dataset = Dataset.load(arguments.data)
    parts = split(dataset)
    popularity = rank_cases(train_baseline("popularity", dataset), parts, "valid")
    cf_off = [event["ndcg@10_cf_off"] for event in validations]
    result: dict[str, Any] = {
        "seconds": round(seconds, 1),
        "loss": {"first": float(losses[:ENDS].mean()), "last": float(losses[-ENDS:].mean()), "steps": len(losses)},
        "validation": [
            {name: event[name] for name in ("epoch", "ndcg@10", "ndcg@10_cf_off", "users")} for event in validations
        ],
        "popularity_ndcg@10": float(gains(popularity["rank"].to_numpy(), 10).mean()),
        "provenance": provenance("cpu"),
    }
    result["met"] = {"time": seconds <= LIMIT, "learns": cf_off[-1] > max(cf_off[0], result["popularity_ndcg@10"])}
    write_json(RESULT, result)
    print(json.dumps(result, indent=2))
    sys.exit(0 if all(result["met"].values()) else 1)


if __name__ == "__main__":
    main()
