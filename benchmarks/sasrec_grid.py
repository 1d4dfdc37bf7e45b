"""Which settings of SASRec rank best on a data set's validation users: single changes of the defaults, a few together.

    python -m benchmarks.sasrec_grid --data DIR --scratch DIR --name NAME

trains SASRec with each change, looks at validation alone, and writes benchmarks/results/sasrec-grid-NAME.json. What is
finished in the scratch folder is not trained again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from darec.baselines import default_settings, train_baseline
from darec.config import CollaborativeSettings
from darec.data.interactions import Dataset
from darec.runs import hold_to, provenance, write_json

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
    parser.add_argument("--scratch", type=Path, required=True, help="folder for what is finished")
    parser.add_argument("--name", required=True, help="of the data set, for the result")
    arguments = parser.parse_args()
    dataset, default = Dataset.load(arguments.data), default_settings("sasrec")
    hold_to(arguments.scratch, {"data": arguments.name, "settings": default.model_dump(mode="json")})
    tried = [try_change(dataset, default, change, arguments.scratch) for change in CHANGES]
    result = {"data": arguments.name, "default": default.model_dump(mode="json")}
    result |= {"tried": sorted(tried, key=lambda row: -row["validation_ndcg@10"]), "provenance": provenance("cpu")}
    write_json(RESULTS / f"sasrec-grid-{arguments.name}.json", result)


def try_change(
    dataset: Dataset, default: CollaborativeSettings, change: dict[str, Any], scratch: Path
) -> dict[str, Any]:
    """Train with one change, once; tells the best validation NDCG@10."""
    done = scratch / f"{'-'.join(f'{key}-{value}' for key, value in change.items()) or 'default'}.json"
    if not done.is_file():
        events: list[dict[str, Any]] = []
        train_baseline("sasrec", dataset, settings=default.model_copy(update=change), on_epoch=events.append)
        best = max(event["ndcg@10"] for event in events)
        write_json(done, {"change": change, "validation_ndcg@10": best, "epochs": len(events)})
    found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
    print(found, flush=True)
    return found


if __name__ == "__main__":
    main()
