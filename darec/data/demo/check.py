"""Hold the demo catalogue against a table of films: `python -m darec.data.demo.check --wikipedia FILE`.

FILE is a Parquet table with title and year of (mostly American) films, such as one made from Wikipedia's lists. A film
of ours that has a namesake there, but none of the same year, is a mismatch. Each must be settled: by correcting
assets/demo/films.csv, or by a row of assets/demo/reviewed-years.csv that says why our year stands. Exit code 1 where
one is not, or where a row of the review no longer meets a mismatch.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from darec.data.demo.films import ASSETS, load_films, plain

REVIEWED = ASSETS / "reviewed-years.csv"


def find_mismatches(films: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """One row a mismatch: title, ours (int), theirs (the years of all namesakes, joined with a bar).

    Args:
        films: our table, with title and year.
        other: the table to hold it against, with title and year.
    """
    years = other.assign(key=other["title"].map(plain)).groupby("key")["year"].agg(lambda found: sorted(set(found)))
    rows = [
        (title, year, "|".join(map(str, years[plain(title)])))
        for title, year in zip(films["title"], films["year"], strict=True)
        if plain(title) in years and year not in years[plain(title)]
    ]
    return pd.DataFrame(rows, columns=["title", "ours", "theirs"])


def find_unsettled(mismatches: pd.DataFrame, reviewed: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Mismatches that no row of the review explains, and rows of the review that explain no mismatch, in words."""
    have, explained = (
        set((table["title"] + " (" + table["ours"].astype(str) + "): the other table has " + table["theirs"]).tolist())
        for table in (mismatches, reviewed[reviewed["reason"] != ""])
    )
    return sorted(have - explained), sorted(explained - have)


def main() -> None:
    """Print the counts and what is unsettled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wikipedia", type=Path, required=True, metavar="FILE", help="Parquet with title and year")
    films = load_films()
    mismatches = find_mismatches(films, pd.read_parquet(parser.parse_args().wikipedia, columns=["title", "year"]))
    reviewed = pd.read_csv(REVIEWED, dtype=str, keep_default_na=False)
    unsettled, idle = find_unsettled(mismatches, reviewed)
    print(f"{len(films)} films, {len(mismatches)} mismatches, {len(unsettled)} unsettled, {len(idle)} idle reviews")
    print(*unsettled, *idle, sep="\n")
    sys.exit(bool(unsettled or idle))


if __name__ == "__main__":
    main()
