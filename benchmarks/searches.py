"""What searching the adapters is worth, against random search and uniform LoRA, and what the gate is worth.

    python -m benchmarks.searches --data DIR --backbone NAME_OR_DIR --scratch DIR --name NAME [--preset NAME]
        [--set key=value]... [--retrain-epochs N] [--trials N] [--random-trials N] [--users N] [--k N] [--seed N]

searches, retrains the best few of the search, the best of as many random architectures and uniform LoRA of about the
winner's parameters from one start with equal steps, retrains the winner once more with static and with equal
weights, and ranks the test users with each. The finished seed joins those of the same settings, trials and users in
benchmarks/results/search-NAME.json, ranks of every test user and all, so that seeds can be made apart; and, as a table,
docs/search.md. Interrupted, it goes on where it stopped.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from benchmarks.documents import insert_results
from darec.config import Settings, load_settings, parse_settings
from darec.data.interactions import Dataset
from darec.evaluation.error_analysis import item_categories, items_in
from darec.evaluation.metrics import gains, mean_with_interval, spell_mean
from darec.evaluation.protocol import rank_cases
from darec.explain.adaption import list_options, read_weights
from darec.model.recommender import DarecModel
from darec.runs import MANIFEST, provenance, read_run, write_json
from darec.search.chain import equal_steps, is_begun, search, settings_of, train_once
from darec.search.results import RANDOM, load_search, read_architecture
from darec.search.space import read_space
from darec.serving import Recommender
from darec.training.output import LOG
from darec.training.shared import SHARED

RESULTS = Path(__file__).resolve().parent / "results"
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "search.md"
FEWEST_USERS = 100  # of a kind, of fewer nothing is said
RANKS = "ranks-test.parquet"
NAMES = ("searched", "random", "uniform LoRA")
TRIAL = ("sampler", "number", "architecture", "parameters", "cross_entropy", "ndcg@10", "late_gate")
PATHS = {"with CF": "rank", "CF off": "rank_cf_off"}  # columns of a rank file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--backbone", required=True, help="hub name or folder")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--name", required=True, help="of the data set, for the results")
    parser.add_argument("--preset", default="ml-100k")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting; repeatable")
    parser.add_argument(
        "--retrain-epochs", type=int, help="of what is trained alone; those of the settings if not given"
    )
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--random-trials", type=int, default=300)
    parser.add_argument("--users", type=int, default=256, help="validation users that a trial is scored on")
    parser.add_argument("--k", type=int, default=3, help="architectures of the search that are retrained")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    settings = load_settings(arguments.preset, overrides=("adapters.weights=gated", *arguments.set))
    out = arguments.scratch / f"searched-{arguments.seed}"
    if not (out / MANIFEST).is_file():
        search(
            arguments.data,
            out,
            settings,
            backbone=arguments.backbone,
            trials=arguments.trials,
            random_trials=arguments.random_trials,
            users=arguments.users,
            k=arguments.k,
            retrain_epochs=arguments.retrain_epochs,
            seed=arguments.seed,
            resume=is_begun(out),
            device="cpu",
        )
    found = compare(out, arguments.data, arguments.backbone, settings, arguments.seed)
    found |= {"seed": arguments.seed, "k": arguments.k, "provenance": provenance("cpu")}
    path = RESULTS / f"search-{arguments.name}.json"
    results = {"data": arguments.name, "backbone": Path(arguments.backbone).name, "preset": arguments.preset}
    results |= {"overrides": arguments.set, "retrain_epochs": arguments.retrain_epochs}
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"seeds": []}
    same = all(before.get(name) == value for name, value in results.items())
    seeds = add_seed(found, before["seeds"] if same else [])
    results |= {"over_seeds": join(seeds), "seeds": seeds}
    table = describe(results)  # before anything is written: a seed in another form ends it
    write_json(path, results)
    if f"<!-- results:search-{arguments.name} -->" in DOCUMENT.read_text(encoding="utf-8"):
        insert_results(DOCUMENT, f"search-{arguments.name}", table)
    print(table)


def add_seed(found: dict[str, Any], seeds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A finished seed among others, in order; those of other trials or users, and its own earlier one, are left out."""

    def form(seed: dict[str, Any]) -> tuple[Any, ...]:
        users = len(seed["models"]["searched"].get("ranks", {}).get("with CF", "").split())
        # Of the random pool as many count as the search had trials, however large it is.
        trials = {name: count for name, count in seed["search"]["trials"].items() if name != RANDOM}
        return seed.get("k"), seed["search"]["users"], trials, users

    kept = [seed for seed in seeds if seed["seed"] != found["seed"] and form(seed) == form(found)]
    return sorted([*kept, found], key=lambda seed: int(seed["seed"]))


def compare(out: Path, data: Path, backbone: str, settings: Settings, seed: int) -> dict[str, Any]:
    """Everything that is reported of one finished search."""
    result, work = load_search(out), out.with_name(f"{out.name}.search")
    rows: dict[str, dict[str, Any]] = {row["label"]: row for row in result.summary["retrained"]}
    searched = next(row for row in rows.values() if row["winner"])  # uniform LoRA matches its size
    chosen = dict(zip(NAMES, (searched, rows["random"], rows["uniform LoRA"]), strict=True))
    runs = {name: work / row["run"] for name, row in chosen.items()}
    best = read_architecture(searched["architecture"])
    for weights in ("static", "fixed"):
        adapters = settings.adapters.model_copy(update={"weights": weights})
        own = equal_steps(settings.model_copy(update={"adapters": adapters}))
        runs[f"searched, {weights} weights"] = run = work / "alone" / f"searched-{weights}"
        start: dict[str, Any] = {"backbone": backbone, "seed": seed, "device": "cpu", "shared": work / SHARED}
        train_once(run, data, settings_of(own, best, searched["epochs"]), **start)
    ranks = {name: rank_test(run) for name, run in runs.items()}
    catalog = Dataset.load(data).catalog
    tables: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        info, row = read_run(run, verify=False), chosen.get(name, searched)
        own = parse_settings(info["settings"])
        log = (run / LOG).read_text(encoding="utf-8").splitlines()
        tables[name] = {
            "architecture": row["architecture"],
            "parameters": read_space(backbone, catalog, own).parameters(read_architecture(row["architecture"])),
            "validation": info["validation"],
            "test_ndcg@10": {
                path: mean_with_interval(gains(ranks[name][rank].to_numpy(), 10)) for path, rank in PATHS.items()
            },
            "epochs": info["epochs"],
            "best_epoch": info["best_epoch"],
            "steps": sum(json.loads(line)["stage"] == "training" for line in log),
            "seconds": info["seconds"],
            "ranks": {path: " ".join(map(str, ranks[name][rank])) for path, rank in PATHS.items()},
        }
    return {
        "search": {name: result.summary[name] for name in ("objective", "users", "space", "trials", "seconds")}
        | {name: result.summary[name] for name in ("trial_share", "layers_reused")}
        | {"supernet_provenance": read_run(work / "supernet", verify=False)["provenance"]},
        "best_so_far": result.best_so_far.to_dict("list"),
        "trials": result.trials[list(TRIAL)].to_dict("list"),
        "models": tables,
        "weights": describe_weights(runs["searched"]),
    }


def join(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Test NDCG@10 of each model, and what the searched one has beyond it, each user's mean over the seeds."""
    found: dict[str, Any] = {}
    for name in seeds[0]["models"]:
        found[name] = {"seeds": len(seeds)}
        for path in PATHS:
            searched, own = (
                np.mean(
                    [gains(np.array(seed["models"][each]["ranks"][path].split(), int), 10) for seed in seeds], axis=0
                )
                for each in ("searched", name)
            )
            found[name][path] = mean_with_interval(own)
            if name != "searched":
                found[name][f"searched minus it, {path}"] = mean_with_interval(searched - own)
    return found


def describe(results: dict[str, Any]) -> str:
    """What all finished seeds say together: a table of the models, the searches, and where it all comes from."""
    seeds = results["seeds"]
    lines = [
        "| adapters | parameters | NDCG@10 | searched minus it | CF off | searched minus it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in results["over_seeds"].items():
        parameters = ", ".join(f"{seed['models'][name]['parameters']:,}" for seed in seeds)
        cells = [parameters]
        for path in PATHS:
            cells.append(spell_mean(row[path]))
            gap = row.get(f"searched minus it, {path}")
            cells.append(spell_mean(gap, "+") if gap else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| seed | trials | lowest cross-entropy | of as many random ones | a trial's cost | layers reused "
        "| best on validation |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for seed in seeds:
        search, best = seed["search"], {name: values[-1] for name, values in seed["best_so_far"].items()}
        lines.append(
            f"| {seed['seed']} | {best['trial']} | {best['searched']:.4f} | {best['random_median']:.4f} "
            f"({best['random_low']:.4f} to {best['random_high']:.4f}), of {search['trials']['random']} "
            f"| {100 * search['trial_share']:.2f} % | {100 * search['layers_reused']:.0f} % "
            f"| {max(NAMES, key=lambda name: seed['models'][name]['validation']['ndcg@10'])} |"
        )
    tau = json.loads((RESULTS / "supernet.json").read_text(encoding="utf-8"))["kendall_tau"]
    steps = _each(model["steps"] for seed in seeds for model in seed["models"].values())
    users, retrained = _each(seed["search"]["users"] for seed in seeds), _each(seed["k"] for seed in seeds)
    made = seeds[0]["provenance"]
    preset = " ".join([results["preset"], *(f"`--set {override}`" for override in results["overrides"])])
    lines += [
        "",
        f"{results['data']}, backbone {results['backbone']}, preset {preset}: test NDCG@10, seen items "
        f"removed, each user's mean over {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}, with 95 % bootstrap "
        f"intervals over users; each model trained alone for {steps} steps; of each search's front the best "
        f"{retrained} retrained; trials scored on {users} validation users. A trial's cost is in shares of the "
        "supernet's training, proposal included; layers reused are the mean share that a trial took from earlier ones. "
        "Kendall's tau between scores in a supernet and alone was measured with the smallest preset only: "
        f"{tau['tau']:.2f} (p = {tau['p']:.2f}, {tau['n']} architectures; "
        "[supernet.json](../benchmarks/results/supernet.json)). Made by "
        f"`benchmarks/searches.py` on {made['date'][:10]} ({made['platform']}, {made['device']}, torch "
        f"{made['versions']['torch']}); architectures and more in "
        f"[search-{results['data']}.json](../benchmarks/results/search-{results['data']}.json).",
    ]
    return "\n".join(lines)


def _each(values: Iterable[int]) -> str:
    return " or ".join(map(str, sorted(set(values))))


def rank_test(run: Path) -> pd.DataFrame:
    """The rank file of a run, made once."""
    if not (run / RANKS).is_file():
        recommender = Recommender.load(run)
        rank_cases(recommender.scorer, recommender.split, "test").to_parquet(run / RANKS, index=False)
    return pd.read_parquet(run / RANKS)


def describe_weights(run: Path) -> dict[str, Any]:
    """Adaption weights averaged over kinds of test users: who has a long history, who watches what genre.

    Returns:
        options; layers; for each kind its users and mean weights [layers][options]; and for long against short
        histories, and for each genre against all other users, the largest difference with its 95 % interval.
    """
    recommender = Recommender.load(run)
    model = cast(DarecModel, recommender.scorer)
    if not model.plan:
        return {"options": [], "note": "The best of the search has no adapters."}
    test = recommender.split.test
    histories = [history.tolist() for history in test.histories]
    weights = np.concatenate([read_weights(model, histories[i : i + 16]) for i in range(0, len(histories), 16)])
    lengths = np.array([len(history) for history in histories])
    low, high = np.quantile(lengths, [1 / 3, 2 / 3])
    kinds = {"short histories": lengths <= low, "long histories": lengths > high}
    reach = model.settings.sequence.max_items
    categories = item_categories(recommender.catalog)
    for name in sorted({name for own in categories.get("genres", ()) for name in own}):
        holds = items_in(categories["genres"], [name])
        shares = np.array([holds[history[-reach:]].mean() for history in histories])
        kinds[f"{name}: half of the window or more"] = shares >= 0.5
    kinds = {name: members for name, members in kinds.items() if FEWEST_USERS <= members.sum() < len(members)}
    differences = {
        name: largest_difference(
            weights[members], weights[kinds["short histories"] if name == "long histories" else ~members]
        )
        for name, members in kinds.items()
        if name != "short histories"
    }
    return {
        "options": list(list_options(model)),
        "all": _mean(weights),
        "kinds": {
            name: {"users": int(members.sum()), "mean": _mean(weights[members])} for name, members in kinds.items()
        },
        "largest_difference": differences,
    }


def largest_difference(ones: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    """Where the mean weights of two groups of users, [n, L, O] each, lie farthest apart.

    The interval is of that place alone, so it says less than it seems to: the place was chosen for being farthest.
    """
    gap = np.nan_to_num(ones.mean(axis=0) - others.mean(axis=0))
    layer, option = np.unravel_index(np.abs(gap).argmax(), gap.shape)
    random = np.random.default_rng(0)
    draws = [
        random.choice(ones[:, layer, option], len(ones)).mean()
        - random.choice(others[:, layer, option], len(others)).mean()
        for _ in range(1000)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "layer": int(layer),
        "option": int(option),
        "difference": float(gap[layer, option]),
        "low": float(low),
        "high": float(high),
    }


def _mean(weights: np.ndarray) -> list[list[float | None]]:
    mean = weights.mean(axis=0)
    return [[None if np.isnan(value) else round(float(value), 4) for value in layer] for layer in mean]


if __name__ == "__main__":
    main()
