"""Does a supernet's score of an architecture tell how it does when it is trained alone?

    python -m benchmarks.supernet --data DIR --scratch DIR [--backbone NAME_OR_DIR] [--preset NAME] [--architectures N]

trains a supernet, draws architectures at random, scores each with inherited weights and again after it was trained
alone for as many epochs, on the same validation users, and writes benchmarks/results/supernet.json with Kendall's tau.
Without that figure a supernet proves nothing. Trainings already finished in the scratch folder are not repeated.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from darec.config import Settings, load_settings
from darec.data.interactions import Dataset
from darec.data.splits import Cases, split
from darec.model.recommender import DarecModel
from darec.runs import MANIFEST, provenance, read_run, write_json
from darec.search.chain import settings_of
from darec.search.results import rank_agreement
from darec.search.space import Space, read_space
from darec.search.supernet import Supernet, fixed_cases, supernet_paths
from darec.training.loop import LATE_GATES, train
from darec.training.output import LOG

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
    train_once(scratch / "supernet", data, settings, backbone=backbone, paths=supernet_paths(space, SEED))
    supernet = Supernet.load(scratch / "supernet", space, USERS, SEED)
    cases = fixed_cases(split(Dataset.load(data)).valid, USERS, SEED)
    random = np.random.default_rng(SEED)
    rows = []
    for number in range(architectures):
        architecture = space.draw(random)
        inherited = supernet.score(architecture)
        run = scratch / f"alone-{number:02d}"
        train_once(run, data, settings_of(settings, architecture), backbone=backbone)
        rows.append(
            {
                "architecture": architecture,
                "parameters": space.parameters(architecture),
                "supernet": inherited.cross_entropy,
                "alone": cross_entropy(DarecModel.load(run), cases),
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


def train_once(run: Path, data: Path, settings: Settings, **arguments: Any) -> None:
    """Train unless that is done; go on if it was begun."""
    if not (run / MANIFEST).is_file():
        print(f"== {run.name}", file=sys.stderr, flush=True)
        train(data, run, settings, seed=SEED, resume=(run / LOG).is_file(), device="cpu", **arguments)


def cross_entropy(model: DarecModel, cases: Cases) -> float:
    """What the supernet measures, of a model trained alone: nats, under the best share of the CF model's own score."""
    model.temperatures.fill_(1.0)
    model.cold_prior.zero_()
    gates = LATE_GATES if model.collaborative is not None else (0.0,)
    if model.collaborative is not None:
        torch.nn.init.ones_(model.late_gate)
    losses, size = np.zeros(len(gates)), model.settings.training.evaluation_batch_size
    for first in range(0, len(cases), size):
        batch = cases.subset(np.arange(first, min(first + size, len(cases))))
        terms = model.last_terms([history.tolist() for history in batch.histories])
        targets = torch.from_numpy(batch.targets)
        losses += [
            float(F.cross_entropy((terms.without_late() + gate * terms.late).float(), targets, reduction="sum"))
            for gate in gates
        ]
    return float(losses.min()) / len(cases)


if __name__ == "__main__":
    main()
