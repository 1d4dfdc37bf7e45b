"""Does a supernet's score of an architecture tell how it does when it is trained alone?

    python -m benchmarks.supernet --data DIR --scratch DIR [--backbone NAME_OR_DIR] [--preset NAME]
        [--set key=value]... [--name NAME] [--architectures N]

trains a supernet, draws architectures at random, scores each with inherited weights and again after it was trained
alone for as many epochs, with two seeds, on the same validation users, and writes Kendall's tau to
benchmarks/results/supernet.json, or supernet-NAME.json. Without that figure a supernet proves nothing. How well the two
seeds agree is the most that can be asked of it. Trainings already finished in the scratch folder are not repeated.
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
from darec.search.chain import equal_steps, settings_of, train_once
from darec.search.results import rank_agreement
from darec.search.space import Architecture, Space, read_space
from darec.search.supernet import Supernet, fixed_cases, measure, supernet_paths
from darec.training.shared import SHARED

RESULTS = Path(__file__).resolve().parent / "results"
USERS = 256  # of validation; as many as a search scores a trial on
SEEDS = (0, 1)  # of trainings alone; the supernet's, the draws' and the users' is the first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--backbone", help="hub name or folder; a tiny random one if not given")
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting; repeatable")
    parser.add_argument("--name", help="of the result, where it is not that of the smallest preset")
    parser.add_argument("--architectures", type=int, default=16)
    arguments = parser.parse_args()
    tiny = () if arguments.backbone else ("backbone.tiny=true",)
    settings = equal_steps(load_settings(arguments.preset, overrides=("adapters.weights=gated", *tiny, *arguments.set)))
    space = read_space(arguments.backbone, Dataset.load(arguments.data).catalog, settings, SEEDS[0])
    found = compare(space, settings, arguments.data, arguments.scratch, arguments.backbone, arguments.architectures)
    results = {"preset": arguments.preset, "overrides": arguments.set}
    results |= {"backbone": arguments.backbone and Path(arguments.backbone).name, **found}
    write_json(RESULTS / f"supernet{f'-{arguments.name}' if arguments.name else ''}.json", results)
    print(json.dumps({name: value for name, value in results.items() if name != "architectures"}, indent=2))


def compare(
    space: Space, settings: Settings, data: Path, scratch: Path, backbone: str | None, architectures: int
) -> dict[str, Any]:
    """Score random architectures in a supernet and alone."""
    start = {"backbone": backbone, "device": "cpu", "shared": scratch / SHARED}
    train_once(scratch / "supernet", data, settings, paths=supernet_paths(space, SEEDS[0]), seed=SEEDS[0], **start)
    supernet = Supernet.load(scratch / "supernet", space, USERS, SEEDS[0])
    cases = fixed_cases(split(Dataset.load(data)).valid, USERS, SEEDS[0])
    random = np.random.default_rng(SEEDS[0])
    rows = []
    drawn: list[Architecture] = []
    while len(drawn) < architectures:
        if (architecture := space.draw(random)) not in drawn:
            drawn.append(architecture)
    for number, architecture in enumerate(drawn):
        inherited = supernet.score(architecture)
        trained = []
        for seed in SEEDS:
            run = scratch / f"alone-{number:02d}-{seed}"
            train_once(run, data, settings_of(settings, architecture), seed=seed, **start)
            trained.append(measure(DarecModel.load(run), cases)[0])
        rows.append(
            {
                "architecture": architecture,
                "parameters": space.parameters(architecture),
                "supernet": inherited.cross_entropy,
                "alone": trained,
                "supernet_seconds": inherited.seconds,
            }
        )
    scores, alone = np.array([row["supernet"] for row in rows]), np.array([row["alone"] for row in rows])
    seconds = read_run(scratch / "supernet")["seconds"]
    trial = float(np.median([row["supernet_seconds"] for row in rows]))
    return {
        "users": len(cases),
        "epochs": settings.training.epochs,
        "kendall_tau": rank_agreement(scores.tolist(), alone.mean(axis=1).tolist()),
        "kendall_tau_by_seed": [rank_agreement(scores.tolist(), each) for each in alone.T.tolist()],
        "kendall_tau_between_seeds": rank_agreement(*alone.T.tolist()),
        "standard_deviation": {
            "supernet": float(scores.std(ddof=1)),
            "alone": float(alone.mean(axis=1).std(ddof=1)),
            "alone_between_seeds": float((alone[:, 0] - alone[:, 1]).std(ddof=1) / np.sqrt(2)),
        },
        "supernet_seconds": seconds,
        "trial_seconds": trial,
        "trial_share": trial / seconds,
        "architectures": rows,
        "seeds": SEEDS,
        "provenance": provenance("cpu"),
    }


if __name__ == "__main__":
    main()
