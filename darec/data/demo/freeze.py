"""Record what the frozen world is: `python -m darec.data.demo.freeze` writes assets/demo/world.json, and beside it in
`truth` what its viewers like.

Run it only when the world is meant to change; every model trained on it must then be trained again.
"""

import hashlib
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from darec.data.demo.films import ASSETS
from darec.data.demo.truth import save_truth
from darec.data.demo.world import VERSION, World, make_world
from darec.runs import write_json

WORLD, TRUTH = ASSETS / "world.json", ASSETS / "truth"


def describe_world(world: World) -> dict[str, Any]:
    """What identifies a world: generator version, seed, rules, counts, and a sha256 of all it is made of."""
    lengths = world.interactions["user_id"].value_counts()
    return {
        "note": "Simulated viewers of real films; no evidence about people.",
        "version": VERSION,
        "seed": world.seed,
        "viewers": len(lengths),
        "films": len(world.films),
        "interactions": len(world.interactions),
        "median_length": float(lengths.median()),
        "late_releases": int(is_late(world).sum()),
        "interactions_sha256": sha256_of_rows(world.interactions),
        "items_sha256": sha256_of_rows(world.items),
        "states_sha256": sha256_of_rows(world.states),
        "rules": asdict(world.rules),
    }


def is_late(world: World) -> np.ndarray:
    """[N] bool: the films that come out at the end of the calendar."""
    return world.stage.released >= world.rules.days - world.rules.late_days


def sha256_of_rows(table: pd.DataFrame) -> str:
    """Hex sha256 of the table as CSV in UTF-8: tabs between cells, a line feed behind each row, no header.

    Unlike the sum of a Parquet file it does not change with the library that writes the file.
    """
    return hashlib.sha256(table.to_csv(sep="\t", header=False, index=False, lineterminator="\n").encode()).hexdigest()


if __name__ == "__main__":
    made = make_world()
    write_json(WORLD, describe_world(made))
    TRUTH.mkdir(exist_ok=True)
    save_truth(made, TRUTH)
    print(f"Wrote {WORLD} and {TRUTH}.")
