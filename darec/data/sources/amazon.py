"""Amazon reviews and product metadata, JSON lines, gzipped or not.

The 2014 metadata are Python literals, one a line; those of 2018 are JSON. Both reviews files are JSON with reviewerID,
asin, overall and unixReviewTime. Metadata cover a whole category, so only products that were reviewed are taken; a
product without metadata keeps a blank title. Category paths are joined with ` > `, several of them with ` | `.

Source: https://jmcauley.ucsd.edu/data/amazon/ and https://nijianmo.github.io/amazon/.
"""

import ast
import html
import json
import re
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from darec.data.interactions import MAX_TITLE
from darec.data.sources.files import SourceFiles, SourceTables, join_text
from darec.errors import DataError

_JSON_LINES = re.compile(r"\.(json|jsonl)(\.gz)?$")
_ASIN = re.compile(r"""['"]asin['"]\s*:\s*['"]([^'"]+)['"]""")


def read_amazon(files: SourceFiles) -> SourceTables | None:
    """Read one reviews file and its metadata; None if the files are of another kind.

    Raises:
        DataError: one of the two is lacking or there are several, a file is empty, or a line is not an object of the
            right kind.
    """
    names = [name for name in files.names if _JSON_LINES.search(PurePosixPath(name).name)]
    firsts = {name: next(files.lines(name), "") for name in names}
    reviews = [name for name, line in firsts.items() if "reviewerID" in line and "asin" in line]
    metadata = [name for name, line in firsts.items() if "reviewerID" not in line and _ASIN.search(line)]
    empty = [name for name, line in firsts.items() if not line.strip()]
    if empty and (reviews or metadata):
        raise DataError(f"{files.path}: {empty[0]} must have at least one line; it is empty. Give a file with data.")
    if not reviews:
        return None
    if len(reviews) > 1 or len(metadata) != 1:
        raise DataError(
            f"{files.path} must hold one reviews file and one metadata file; it has {', '.join(reviews)} and "
            f"{', '.join(metadata) or 'no metadata'}. Keep one of each there."
        )
    interactions = _read_reviews(files, reviews[0])
    reviewed = {asin for asin in interactions["item_id"] if isinstance(asin, str)}
    items = _read_metadata(files, metadata[0], reviewed)
    return SourceTables(interactions, items, (reviews[0], metadata[0]), "Amazon reviews and metadata")


def _read_reviews(files: SourceFiles, name: str) -> pd.DataFrame:
    keys = {"user_id": "reviewerID", "item_id": "asin", "timestamp": "unixReviewTime", "rating": "overall"}
    rows = {}
    for number, line in enumerate(files.lines(name), start=1):
        if line.strip():
            review = _parse(line, f"{files.path}: {name}, line {number}")
            rows[number - 1] = [review.get(key) for key in keys.values()]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(keys), dtype=object).rename_axis("line")


def _read_metadata(files: SourceFiles, name: str, reviewed: set[str]) -> pd.DataFrame:
    """One row a reviewed product, in the order of the file, then those it lacks; the first of repeated lines counts."""
    products: dict[str, dict[str, str]] = {}
    for number, line in enumerate(files.lines(name), start=1):
        asin = _ASIN.search(line)
        if not line.strip() or (asin and (asin[1] not in reviewed or asin[1] in products)):
            continue  # parsing is what costs time, and most products of a category are in no 5-core
        product = _parse(line, f"{files.path}: {name}, line {number}")
        if asin and product.get("asin") == asin[1]:
            products[asin[1]] = _describe(product)
    lacking = sorted(reviewed - products.keys())
    described = [*products.items(), *((asin, {"title": ""}) for asin in lacking)]
    return pd.DataFrame([{"item_id": asin, **text} for asin, text in described]).fillna("")


def _describe(product: dict[str, Any]) -> dict[str, str]:
    title = _clean(product.get("title"))
    paths = product.get("categories") or [product.get("category") or []]
    return {
        # Some titles of 2018 are a page's code rather than a name.
        "title": "" if len(title) > MAX_TITLE or "getTime()" in title else title,
        "category": join_text((join_text(map(_clean, path), " > ") for path in paths if isinstance(path, list)), " | "),
        "brand": _clean(product.get("brand")),
    }


def _clean(value: Any) -> str:
    return " ".join(html.unescape(value).split()) if isinstance(value, str) else ""


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        try:
            value = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
    if not isinstance(value, dict):
        raise DataError(f"{where}: a line must be one JSON object; got {line.strip()[:40]!r}. Get the file again.")
    return value
