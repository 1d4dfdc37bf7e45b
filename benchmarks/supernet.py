"""Does a supernet's score of an architecture tell how it does when it is trained alone?

    python -m benchmarks.supernet --data DIR --scratch DIR [--backbone NAME_OR_DIR] [--preset NAME] [--architectures N]

trains a supernet, draws architectures at random, scores each with inherited weights and again after it was trained
alone for as many epochs, on the same validation users, and writes benchmarks/results/supernet.json with Kendall's tau.
Without that figure a supernet proves nothing. Trainings already finished in the scratch folder are not repeated.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from darec.config import Settings, load_settings
from darec.data.interactions import Dataset
from darec.data.splits import split
from darec.model.recommender import DarecModel
from darec.runs import provenance, read_run, write_json
from darec.search.chain import settings_of, train_once
from darec.search.results import rank_agreement
from darec.search.space import Architecture, Space, read_space
from darec.search.supernet import Supernet, fixed_cases, measure, supernet_paths

RESULTS = Path(__file__).resolve().parent / "results" / "supernet.json"
USERS = 256  # of validation; as many as a search scores a trial on
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--backbone", help="hub name or folder; a tiny random one if not given")
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--architectures", type=int, default=16)
    arguments = parser.parse_args()
    overrides = ("adapters.weights=gated", *(() if arguments.backbone else ("backbone.tiny=true",)))
    settings = load_settings(arguments.preset, overrides=overrides)
    training = settings.training.model_copy(update={"patience": settings.training.epochs})  # none stops early
    settings = settings.model_copy(update={"training": training})
    space = read_space(arguments.backbone, Dataset.load(arguments.data).catalog, settings, SEED)
    found = compare(space, settings, arguments.data, arguments.scratch, arguments.backbone, arguments.architectures)
    results = {"preset": arguments.preset, "backbone": arguments.backbone and Path(arguments.backbone).name, **found}
    write_json(RESULTS, results)
    print(json.dumps({name: results[name] for name in ("kendall_tau", "trial_share")}, indent=2))


def compare(
    space: Space, settings: Settings, data: Path, scratch: Path, backbone: str | None, architectures: int
) -> dict[str, Any]:
    """Score random architectures in a supernet and alone."""
    start = {"backbone": backbone, "seed": SEED, "device": "cpu"}
    train_once(scratch / "supernet", data, settings, paths=supernet_paths(space, SEED), **start)
    supernet = Supernet.load(scratch / "supernet", space, USERS, SEED)
    cases = fixed_cases(split(Dataset.load(data)).valid, USERS, SEED)
    random = np.random.default_rng(SEED)
    rows = []
    drawn: list[Architecture] = []
    while len(drawn) < architectures:
        if (architecture := space.draw(random)) not in drawn:
            drawn.append(architecture)
    for number, architecture in enumerate(drawn):
        inherited = supernet.score(architecture)
        run = scratch / f"alone-{number:02d}"
        train_once(run, data, settings_of(settings, architecture), **start)
        rows.append(
            {
                "architecture": architecture,
                "parameters": space.parameters(architecture),
                "supernet": inherited.cross_entropy,
                "alone": measure(DarecModel.load(run), cases)[0],
                "supernet_seconds": inherited.seconds,
                "alone_ndcg@10": read_run(run)["validation"]["ndcg@10"],
            }
        )
    seconds = read_run(scratch / "supernet")["seconds"]
    return {
        "users": len(cases),
        "epochs": settings.training.epochs,
        "kendall_tau": rank_agreement([row["supernet"] for row in rows], [row["alone"] for row in rows]),
        "supernet_seconds": seconds,
        "trial_share": float(np.mean([row["supernet_seconds"] for row in rows])) / seconds,
        "architectures": rows,
        "seed": SEED,
        "provenance": provenance("cpu"),
    }


if __name__ == "__main__":
    main()
