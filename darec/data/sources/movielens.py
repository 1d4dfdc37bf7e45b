"""MovieLens in the layouts of its official zips.

    ml-100k                     u.data (tabs), u.item (|, ISO-8859-1)
    ml-1m, ml-10m               ratings.dat, movies.dat (::)
    ml-latest, 20m, 25m, 32m    ratings.csv, movies.csv

Source: the README in each zip; Harper and Konstan, The MovieLens Datasets: History and Context, 2015.
"""

import re

import numpy as np
import pandas as pd

from darec.data.sources.files import SourceFiles, SourceTables

_GENRES = [  # in the order of the flags in u.item
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
]
_YEAR = re.compile(r"^(.*?)\s*\((\d{4})\)$")
_TRAILING_ARTICLE = re.compile(r"^(.*), (The|An|A)$")
_CSV_COLUMNS = {"userId": "user_id", "movieId": "item_id"}


def read_movielens(files: SourceFiles) -> SourceTables | None:
    """Read any of the layouts; None if the files are of another kind.

    Raises:
        DataError: a line is not as the layout has it.
    """
    if (ratings := files.find("u.data")) and (movies := files.find("u.item")):
        return _read_100k(files, ratings, movies)
    if (ratings := files.find("ratings.dat")) and (movies := files.find("movies.dat")):
        return _read_1m(files, ratings, movies)
    if (ratings := files.find("ratings.csv")) and (movies := files.find("movies.csv")):
        header = next(files.lines(movies), "").strip().split(",")
        return _read_latest(files, ratings, movies) if header[:2] == ["movieId", "title"] else None
    return None


def split_title(text: str) -> tuple[str, str]:
    """Title and year, the article in front: `Godfather, The (1972)` -> `The Godfather`, `1972`.

    A title without a year in brackets at its end has the year `""` and stays as it is but for its article.
    """
    text = text.strip()
    match = _YEAR.match(text)
    title, year = match.groups() if match else (text, "")
    return _TRAILING_ARTICLE.sub(r"\2 \1", title), year


def _read_100k(files: SourceFiles, ratings: str, movies: str) -> SourceTables:
    interactions = files.read_delimited(ratings, "\t", columns=["user_id", "item_id", "rating", "timestamp"])
    columns = ["item_id", "title", "release_date", "video_release_date", "url", *_GENRES]
    items = files.read_delimited(movies, "|", columns=columns, encoding="iso-8859-1")
    flags = (items[_GENRES] == "1").to_numpy()
    genres = ["|".join(np.array(_GENRES)[row]) for row in flags]
    return _tables(interactions, items.assign(genres=genres), (ratings, movies), "MovieLens 100K")


def _read_1m(files: SourceFiles, ratings: str, movies: str) -> SourceTables:
    interactions = files.read_delimited(ratings, "::", columns=["user_id", "item_id", "rating", "timestamp"])
    # The 1M file is ISO-8859-1, the 10M file UTF-8.
    encoding = "utf-8" if files.find("tags.dat") else "iso-8859-1"
    items = files.read_delimited(movies, "::", columns=["item_id", "title", "genres"], encoding=encoding)
    return _tables(interactions, items, (ratings, movies), "MovieLens, ratings.dat and movies.dat")


def _read_latest(files: SourceFiles, ratings: str, movies: str) -> SourceTables:
    interactions = files.read_delimited(ratings, ",").rename(columns=_CSV_COLUMNS)
    items = files.read_delimited(movies, ",").rename(columns=_CSV_COLUMNS)
    return _tables(interactions, items, (ratings, movies), "MovieLens, ratings.csv and movies.csv")


def _tables(interactions: pd.DataFrame, items: pd.DataFrame, files: tuple[str, str], name: str) -> SourceTables:
    titles, years = zip(*map(split_title, items["title"]), strict=True)
    numbers = pd.Series([int(year) if year else pd.NA for year in years], items.index, "Int64")
    items = items.assign(title=titles, year=numbers, title_source=items["title"])
    kept = ["item_id", "title", "year", *(name for name in ("genres", "release_date") if name in items), "title_source"]
    return SourceTables(interactions, items[kept], files, name)
