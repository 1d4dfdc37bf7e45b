"""Error analysis: each test case with its facts, groups of cases, two runs case by case, what was recommended instead.

Everything is computed from rank files, so it agrees with the tables that `summarize` and `slice_metrics` make.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from darec.data.catalog import Catalog
from darec.data.download import cache_folder
from darec.data.splits import COLD_BELOW, Cases, SplitName
from darec.errors import DataError, RunError
from darec.evaluation.metrics import gains, hits, mean_with_interval, paired_difference
from darec.evaluation.protocol import TOP
from darec.evaluation.slices import RELIABLE_FROM
from darec.runs import MANIFEST, sha256_of

NOT_NAMED = "not named"  # the category of an item that has none
_COLUMNS = ("user_id", "target", "rank", "history_length", "target_popularity", "top_items")
_NO_CATEGORY = {"item_id", "title", "asin", "year", "release_date"}
_MAX_CATEGORIES = 200  # a column with more tells items apart rather than grouping them

Categories = list[tuple[str, ...]]  # N entries, one an item: the categories it belongs to, at least one


def identify_run(run: str | Path) -> str:
    """The run id: 12 hex digits that depend on every file of the run, and not on where it lies.

    Raises:
        RunError: the folder is no finished run.
    """
    manifest = Path(run) / MANIFEST
    if not manifest.is_file():
        raise RunError(f"{run} is not a finished run: it has no {MANIFEST}. Name a folder that train wrote.")
    return sha256_of(manifest)[:12]


def find_ranks(run: str | Path, name: SplitName = "test") -> Path | None:
    """The rank file of a run: in its folder, or in the cache where that folder cannot be written; None without one."""
    return next((path for path in _places(Path(run), name) if path.is_file()), None)


def read_ranks(path: Path, cases: Cases) -> pd.DataFrame:
    """Read a rank file and check that it answers these cases.

    Raises:
        DataError: the file is no rank file, or one of other cases.
    """
    remedy = "Delete it and evaluate the run again."
    try:
        ranks = pd.read_parquet(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} must be a Parquet file ({error}). {remedy}") from None
    if missing := [name for name in _COLUMNS if name not in ranks]:
        raise DataError(f"A rank file has a column {missing[0]}; {path} has none. {remedy}")
    if ranks["user_id"].tolist() != cases.user_ids or ranks["target"].tolist() != cases.targets.tolist():
        raise DataError(f"A rank file answers the users of its run in their order; {path} has others. {remedy}")
    return ranks


def write_ranks(run: str | Path, ranks: pd.DataFrame, name: SplitName = "test") -> Path | None:
    """Keep a rank file in the run's folder, else in the cache; returns where, or None where neither can be written."""
    for path in _places(Path(run), name):
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            ranks.to_parquet(temporary, index=False)
            os.replace(temporary, path)
            return path
        except OSError:
            continue
    return None


def _places(run: Path, name: SplitName) -> list[Path]:
    return [run / f"ranks-{name}.parquet", cache_folder() / "ranks" / f"{identify_run(run)}-{name}.parquet"]


def list_cases(ranks: pd.DataFrame, catalog: Catalog) -> pd.DataFrame:
    """The rank file with what a reader needs beside each rank.

    Args:
        ranks: a rank file; see `rank_cases`.
        catalog: the items it was ranked over.

    Returns:
        The columns of `ranks`, and title (of the target), hit (rank is 10 or better), cold (the target has fewer than
        5 training interactions) and first (the title that was recommended first, empty where nothing was).
    """
    titles = catalog.titles
    return ranks.assign(
        title=[titles[item] for item in ranks["target"]],
        hit=ranks["rank"] <= TOP,
        cold=ranks["target_popularity"] < COLD_BELOW,
        first=[titles[items[0]] if len(items) else "" for items in ranks["top_items"]],
    )


def listed_items(case: Mapping[Any, Any]) -> list[int]:
    """The first items of a case as evaluation ranks them: of equals the held-out item is the last.

    Ten of them, or nine where its equals have pushed it out of the ten.

    Args:
        case: a row of `list_cases`.
    """
    items = [item for item in map(int, case["top_items"]) if item != case["target"]]
    if case["hit"]:
        items.insert(int(case["rank"]) - 1, int(case["target"]))
    return items[:TOP]


def select_cases(
    cases: pd.DataFrame,
    *,
    history_length: tuple[int, int] | None = None,
    target_popularity: tuple[int, int] | None = None,
    rank: tuple[int, int] | None = None,
    cold: bool | None = None,
    targets: np.ndarray | None = None,
) -> pd.DataFrame:
    """The cases for which everything asked holds; None asks nothing.

    Args:
        cases: from `list_cases`.
        history_length: from and to, both included, in items.
        target_popularity: from and to, both included, in training interactions.
        rank: from and to, both included.
        cold: true for cold targets only, false for the others.
        targets: [N] bool, the items that the target may be.
    """
    chosen = np.ones(len(cases), bool)
    for column, bounds in (
        ("history_length", history_length),
        ("target_popularity", target_popularity),
        ("rank", rank),
    ):
        if bounds is not None:
            chosen &= cases[column].between(*bounds).to_numpy()
    if cold is not None:
        chosen &= cases["cold"].to_numpy() == cold
    if targets is not None:
        chosen &= targets[cases["target"].to_numpy()]
    return cases[chosen]


def summarize_cases(cases: pd.DataFrame, seed: int = 0) -> dict[str, Any]:
    """users, hr@10, ndcg@10 and mrr (each {mean, low, high} with its 95 % interval), and median_rank."""
    ranks = cases["rank"].to_numpy()
    return {
        "users": len(ranks),
        "hr@10": mean_with_interval(hits(ranks, 10), seed),
        "ndcg@10": mean_with_interval(gains(ranks, 10), seed),
        "mrr": mean_with_interval(1 / ranks, seed),
        "median_rank": float(np.median(ranks)) if len(ranks) else float("nan"),
    }


def item_categories(catalog: Catalog) -> dict[str, Categories]:
    """Each text column that groups the items, split into categories: `Drama|War` stands for two.

    Of a path such as `Beauty > Makeup > Nails` the first two steps that differ between items are the category. A column
    counts when it has 2 to 200 categories that hold two items or more on average. The one that names most items comes
    first.
    """
    found = {}
    for column in catalog.items.columns:
        values = catalog.items[column]
        if column in _NO_CATEGORY or column.startswith("title_") or pd.api.types.is_numeric_dtype(values):
            continue
        categories = _split_values([str(value) for value in values.fillna("")])
        distinct = {category for own in categories for category in own} - {NOT_NAMED}
        memberships = sum(len(own) for own in categories if own != (NOT_NAMED,))
        if 2 <= len(distinct) <= min(_MAX_CATEGORIES, memberships / 2):
            found[column] = categories
    return dict(sorted(found.items(), key=lambda pair: pair[1].count((NOT_NAMED,))))


def _split_values(values: list[str]) -> Categories:
    if any(">" in value for value in values):
        paths = [[step.strip() for step in value.split(">") if step.strip()] for value in values]
        # Steps that all paths share tell nothing; between the first path in order and the last lies every other.
        first, last = min(filter(None, paths)), max(filter(None, paths))
        shared = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        parts = [[" > ".join(path[shared : shared + 2] or path)] if path else [] for path in paths]
    else:
        # MovieLens 1M as it is passed on writes `Animation Children's Comedy`, without a sign between the genres.
        separated = any("|" in value or "," in value for value in values)
        words = {word for value in values for word in value.split()}
        blanks = not separated and len(words) * 4 < len(set(values))
        parts = [re.split(r"\s+" if blanks else r"\s*[|,]\s*", value.strip()) for value in values]
    kept = [[part for part in own if part and not part.startswith("(no ")] for own in parts]
    return [tuple(dict.fromkeys(own)) or (NOT_NAMED,) for own in kept]


def items_in(categories: Categories, names: Sequence[str]) -> np.ndarray:
    """[N] bool: the items that belong to one of these categories."""
    wanted = set(names)
    return np.array([not wanted.isdisjoint(own) for own in categories], bool)


def category_metrics(cases: pd.DataFrame, categories: Categories, name: str, seed: int = 0) -> list[dict[str, Any]]:
    """HR@10 and NDCG@10 by category of the target; an item of two categories counts in both.

    Returns:
        One dict a category that has users, those with most users first: as `slice_metrics`, with category in the place
        of from and to.
    """
    frame = pd.DataFrame({"rank": cases["rank"], "category": [categories[item] for item in cases["target"]]})
    rows = []
    for category, members in frame.explode("category").groupby("category")["rank"]:
        ranks = members.to_numpy()
        rows.append(
            {
                "slice": name,
                "category": str(category),
                "users": len(ranks),
                "reliable": len(ranks) >= RELIABLE_FROM,
                "hr@10": mean_with_interval(hits(ranks, 10), seed),
                "ndcg@10": mean_with_interval(gains(ranks, 10), seed),
            }
        )
    return sorted(rows, key=lambda row: (-row["users"], row["category"]))


def recommended_instead(cases: pd.DataFrame, categories: Categories) -> pd.DataFrame:
    """Which categories stand in the lists of 10 that miss the target, against the targets' own.

    Every missed case weighs the same: its target's categories share 1 equally, and so do the items of its list, each
    of which shares its part equally among its own categories.

    Args:
        cases: from `list_cases`; those with rank 10 or better, or an empty list, take no part.
        categories: from `item_categories`.

    Returns:
        category, of_targets and of_lists (shares; each column sums to 1), difference (of_lists - of_targets), ordered
        by falling difference; no rows where nothing was missed.
    """
    missed = cases[~cases["hit"] & (cases["top_items"].map(len) > 0)]
    of_targets = _shares(missed["target"].map(lambda item: [item]), categories)
    of_lists = _shares(missed["top_items"], categories)
    names = sorted(of_targets.keys() | of_lists.keys())
    table = pd.DataFrame(
        {
            "category": names,
            "of_targets": [of_targets.get(name, 0.0) for name in names],
            "of_lists": [of_lists.get(name, 0.0) for name in names],
        }
    )
    table["difference"] = table["of_lists"] - table["of_targets"]
    return table.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def _shares(lists: pd.Series, categories: Categories) -> dict[str, float]:
    shares: dict[str, float] = {}
    for items in lists:
        for item in items:
            own = categories[item]
            for category in own:
                shares[category] = shares.get(category, 0.0) + 1 / (len(lists) * len(items) * len(own))
    return shares


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs, case by case.

    Attributes:
        pairs: the cases of the first run, with other_rank, other_first and difference (1 / rank - 1 / other_rank);
            the largest loss first.
        wins: cases that the first run ranks better.
        losses: cases that the other ranks better.
        ties: cases that both rank the same.
        hits_gained: cases in the first run's 10 and not in the other's.
        hits_lost: the reverse.
        ndcg: mean difference of NDCG@10, first minus other, and its paired 95 % interval: mean, low, high.
    """

    pairs: pd.DataFrame
    wins: int
    losses: int
    ties: int
    hits_gained: int
    hits_lost: int
    ndcg: Mapping[str, float]


def compare_runs(cases: pd.DataFrame, other: pd.DataFrame, seed: int = 0) -> Comparison:
    """Pair the cases of two runs by user.

    Args:
        cases: from `list_cases`; may be a part.
        other: from `list_cases` of the other run; users that `cases` lacks take no part.
        seed: of the bootstrap.

    Raises:
        DataError: the other run lacks a user, or was asked for another item.
    """
    theirs = other.set_index("user_id").reindex(cases["user_id"])
    if not (theirs["target"].to_numpy() == cases["target"].to_numpy()).all():
        raise DataError("Two runs are compared on the same questions; these have other users or targets. Pick another.")
    pairs = cases.assign(
        other_rank=theirs["rank"].to_numpy(np.int64),
        other_first=theirs["first"].to_numpy(),
    )
    a, b = pairs["rank"].to_numpy(), pairs["other_rank"].to_numpy()
    pairs["difference"] = 1 / a - 1 / b
    mean, low, high = paired_difference(gains(a, 10), gains(b, 10), seed)
    return Comparison(
        pairs.sort_values("difference", kind="stable"),
        wins=int((a < b).sum()),
        losses=int((a > b).sum()),
        ties=int((a == b).sum()),
        hits_gained=int(((a <= TOP) & (b > TOP)).sum()),
        hits_lost=int(((a > TOP) & (b <= TOP)).sum()),
        ndcg={"mean": mean, "low": low, "high": high},
    )
