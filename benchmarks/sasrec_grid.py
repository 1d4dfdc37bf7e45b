"""Which settings of SASRec rank best on a data set's validation users: single changes of the defaults, a few together.

    python -m benchmarks.sasrec_grid --data DIR --name NAME [--max-items N] [--only N]...

trains SASRec with each change, looks at validation alone, and writes benchmarks/results/sasrec-grid-NAME.json after
each. What stands there already, of the same data and defaults, is not trained again. The demo world's result is of
`--max-items 50`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from darec.baselines import default_settings, train_baseline
from darec.config import CollaborativeSettings
from darec.data.interactions import Dataset, fingerprint
from darec.runs import provenance, write_json

RESULTS = Path(__file__).parent / "results"
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"dropout": 0.5},
    {"dropout": 0.2},
    {"hidden_size": 128, "dropout": 0.5},
    {"num_layers": 1},
    {"learning_rate": 1e-3},
    {"weight_decay": 0.1},
    {"max_items": 20},
    {"batch_size": 128},
    # What helped in the demo world, together and further.
    {"batch_size": 128, "learning_rate": 1e-3},
    {"batch_size": 128, "weight_decay": 0.1},
    {"learning_rate": 1e-3, "weight_decay": 0.1},
    {"batch_size": 128, "learning_rate": 1e-3, "weight_decay": 0.1},
    {"batch_size": 512},
    {"batch_size": 128, "dropout": 0.2},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--name", required=True, help="of the data set, for the result")
    parser.add_argument("--max-items", type=int, default=200, help="most recent items that are read unless changed")
    parser.add_argument(
        "--only",
        type=int,
        choices=range(len(CHANGES)),
        action="append",
        help="a change by its place in CHANGES, from 0; repeatable",
    )
    arguments = parser.parse_args()
    dataset = Dataset.load(arguments.data)
    default = default_settings("sasrec").model_copy(update={"max_items": arguments.max_items})
    path = RESULTS / f"sasrec-grid-{arguments.name}.json"
    of = {
        "data": arguments.name,
        "data_fingerprint": fingerprint(arguments.data),
        "default": default.model_dump(mode="json"),
    }
    for place in arguments.only or range(len(CHANGES)):
        if CHANGES[place] not in [row["change"] for row in read_tried(path, of)]:
            row = try_change(dataset, default, CHANGES[place])
            print(row, flush=True)
            tried = [*read_tried(path, of), row]  # read anew: another process may have added its own
            write_json(path, of | {"tried": sorted(tried, key=lambda row: -row["validation_ndcg@10"])})


def read_tried(path: Path, of: dict[str, Any]) -> list[dict[str, Any]]:
    """What the result has already.

    Raises:
        ValueError: it is of other data or defaults.
    """
    if not path.is_file():
        return []
    result = json.loads(path.read_text(encoding="utf-8"))
    tried: list[dict[str, Any]] = result.pop("tried")
    if result != of:
        raise ValueError(f"{path} is of other data or defaults. Give the same ones, or delete it first.")
    return tried


def try_change(dataset: Dataset, default: CollaborativeSettings, change: dict[str, Any]) -> dict[str, Any]:
    """Train with one change; tells the best validation NDCG@10."""
    events: list[dict[str, Any]] = []
    train_baseline("sasrec", dataset, settings=default.model_copy(update=change), on_epoch=events.append)
    best = max(event["ndcg@10"] for event in events)
    return {"change": change, "validation_ndcg@10": best, "epochs": len(events), "provenance": provenance("cpu")}


if __name__ == "__main__":
    main()
