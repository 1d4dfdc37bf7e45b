"""The demo catalogue: real films, their facts written by hand in assets/demo/films.csv.

    item_id, title, year, genres, directors, country, keywords, franchise, part, remake_of

A field of several values joins them with a bar. `part` counts the parts of a franchise in order of release.
"""

import re
import unicodedata
from collections import Counter
from pathlib import Path

import pandas as pd

from darec.errors import DataError

ASSETS = Path(__file__).resolve().parents[3] / "assets" / "demo"
FILMS = ASSETS / "films.csv"
COLUMNS = (
    *("item_id", "title", "year", "genres", "directors", "country", "keywords", "franchise", "part", "remake_of"),
)
GENRES = {
    *("action", "adventure", "animation", "biography", "comedy", "crime", "documentary", "drama", "family", "fantasy"),
    *("film noir", "history", "horror", "musical", "mystery", "romance", "science fiction", "sport", "thriller", "war"),
    "western",
}
_LIMITS = {"genres": (1, 3), "directors": (1, 3), "country": (1, 1), "keywords": (3, 5)}  # values in a field


def load_films(path: Path = FILMS) -> pd.DataFrame:
    """The table as it stands: `year` int64, `part` Int64 (missing outside a franchise), all else str.

    Raises:
        DataError: the file is missing, or `find_faults` finds one.
    """
    if not path.is_file():
        raise DataError(f"The demo catalogue must be at {path}; it is not there. Restore it from the repository.")
    films = pd.read_csv(path, dtype={"part": "Int64", "year": "int64"}, keep_default_na=False, na_values={"part": [""]})
    faults = find_faults(films)
    if faults:
        raise DataError(f"{path} must be a sound catalogue; {len(faults)} faults, the first: {faults[0]}. Correct it.")
    return films


def find_faults(films: pd.DataFrame) -> list[str]:
    """One line for each rule that the table breaks: form, doubled films, parts out of order, remakes of nothing."""
    faults = [f"column {name} is missing" for name in COLUMNS if name not in films]
    if faults:
        return faults
    names = films["title"] + " (" + films["year"].astype(str) + ")"
    for name, (low, high) in _LIMITS.items():
        for film, values in zip(names, films[name].str.split("|"), strict=True):
            if not low <= len(set(values)) <= high or len(set(values)) < len(values) or not all(values):
                faults.append(f"{film}: {name} must be {low} to {high} different values; got {values}")
    for film, genres, year in zip(names, films["genres"].str.split("|"), films["year"], strict=True):
        faults += [f"{film}: unknown genre {genre}" for genre in genres if genre not in GENRES]
        if not 1895 <= year <= 2026:
            faults.append(f"{film}: no film is of that year")
    for column, keys in (("item_id", films["item_id"]), ("title and year", names.map(plain))):
        faults += [f"{column} {key!r} stands twice" for key in keys[keys.duplicated()]]
    known = set(names)
    faults += [
        f"{film}: remake of {original}, which is not in the table"
        for film, original in zip(names, films["remake_of"], strict=True)
        if original and original not in known
    ]
    return faults + _franchise_faults(films)


def _franchise_faults(films: pd.DataFrame) -> list[str]:
    in_one = films["franchise"] != ""
    half = films.loc[in_one != films["part"].notna(), "title"]
    faults = [f"{title}: a franchise and a part need each other" for title in half]
    for franchise, parts in films[in_one].sort_values(["part", "year"]).groupby("franchise"):
        if len(parts) < 2:
            faults.append(f"franchise {franchise} has one film")
        if parts["part"].duplicated().any() or not parts["year"].is_monotonic_increasing:
            faults.append(f"franchise {franchise}: parts must rise with the years")
    return faults


def to_items(films: pd.DataFrame) -> pd.DataFrame:
    """The catalogue as items.parquet has it: item_id, title, year, then what is known of each film in words."""
    franchise = [
        f"{name}, part {part}" if name else "" for name, part in zip(films["franchise"], films["part"], strict=True)
    ]
    texts = {name: films[name].str.replace("|", ", ", regex=False) for name in ("genres", "directors", "keywords")}
    return pd.DataFrame(
        {
            **{name: films[name] for name in ("item_id", "title", "year")},
            "franchise": franchise,
            "directors": texts["directors"],
            "genres": texts["genres"],
            "keywords": texts["keywords"],
            "country": films["country"],
        }
    )


def plain(text: str) -> str:
    """Lower case letters and digits, single spaces: `Amélie: the Film` -> `amelie the film`."""
    letters = (
        text.casefold().replace("&", " and ").replace("ø", "o").replace("ł", "l")
    )  # NFKD leaves the last two whole
    decomposed = unicodedata.normalize("NFKD", letters)
    bare = "".join(character for character in decomposed if not unicodedata.combining(character))
    return " ".join(re.findall(r"[^\W_]+", re.sub("['\u2019`]", "", bare)))


def make_slug(title: str, year: int) -> str:
    """A readable id: `Heat`, 1995 -> `heat-1995`."""
    return f"{plain(title)} {year}".replace(" ", "-")


def attributes_of(films: pd.DataFrame) -> list[list[tuple[str, str]]]:
    """Each film's facts as (kind, value) pairs; kinds are theme, genre, director, country and decade."""
    rows = zip(*(films[name] for name in ("keywords", "genres", "directors", "country", "year")), strict=True)
    return [
        [
            *(("theme", value) for value in keywords.split("|")),
            *(("genre", value) for value in genres.split("|")),
            *(("director", value) for value in directors.split("|")),
            ("country", country),
            ("decade", f"{year // 10 * 10}s"),
        ]
        for keywords, genres, directors, country, year in rows
    ]


def count_attributes(films: pd.DataFrame) -> Counter[tuple[str, str]]:
    """How many films have each fact."""
    return Counter(attribute for film in attributes_of(films) for attribute in film)
