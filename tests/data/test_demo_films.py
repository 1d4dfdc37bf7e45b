import os
from pathlib import Path

import pandas as pd
import pytest

from darec.data.demo.check import REVIEWED, find_mismatches, find_unsettled
from darec.data.demo.films import GENRES, attributes_of, find_faults, load_films, make_slug, plain, to_items
from darec.errors import DataError

SHARED = Path(os.environ.get("DAREC_SHARED") or Path(__file__).resolve().parents[3] / "shared")
WIKIPEDIA = SHARED / "text" / "wikipedia-movies.parquet"


@pytest.fixture(scope="module")
def films():
    return load_films()


def test_catalogue_is_large_old_and_from_all_over_the_world(films):
    assert len(films) >= 800
    decades = films["year"] // 10 * 10
    assert decades.value_counts().reindex(range(1920, 2030, 10), fill_value=0).min() >= 20
    assert films["country"].nunique() >= 40
    assert (films["country"] != "United States").mean() > 0.4
    assert films["franchise"].replace("", None).nunique() >= 40
    assert (films["remake_of"] != "").sum() >= 25


def test_catalogue_has_no_fault(films):
    assert find_faults(films) == []


def test_ids_are_readable_and_made_of_title_and_year(films):
    assert list(films["item_id"]) == [
        make_slug(title, year) for title, year in zip(films["title"], films["year"], strict=True)
    ]
    assert make_slug("Heat", 1995) == "heat-1995"
    assert {"amelie-2001", "the-lord-of-the-rings-the-two-towers-2002"} <= set(films["item_id"])


def test_every_genre_is_in_use(films):
    assert {value for film in attributes_of(films) for kind, value in film if kind == "genre"} == GENRES


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"genres": "space opera"}, "unknown genre space opera"),
        ({"genres": ""}, "genres must be 1 to 3"),
        ({"keywords": "ocean|ocean|food"}, "keywords must be 3 to 5 different values"),
        ({"keywords": "ocean|food"}, "keywords must be 3 to 5 different values"),
        ({"directors": "A|B|C|D"}, "directors must be 1 to 3"),
        ({"year": 1850}, "no film is of that year"),
        ({"franchise": "Saga"}, "a franchise and a part need each other"),
        ({"franchise": "Saga", "part": 1}, "franchise Saga has one film"),
        ({"remake_of": "Nothing (1900)"}, "remake of Nothing (1900), which is not in the table"),
        ({"item_id": "heat-1995"}, "item_id 'heat-1995' stands twice"),
        ({"title": "Heat", "year": 1995}, "title and year 'heat 1995' stands twice"),
    ],
)
def test_a_planted_fault_is_found(films, change, fault):
    row = films[(films["franchise"] == "") & (films["remake_of"] == "") & (films["title"] != "Heat")].index[0]
    spoilt = films.copy()
    heat = dict.fromkeys(["genres", "directors", "country"], "drama") | {"keywords": "a|b|c", "year": 1995}
    if not (films["item_id"] == "heat-1995").any():
        spoilt.loc[len(spoilt)] = heat | {
            "item_id": "heat-1995",
            "title": "Heat",
            "franchise": "",
            "remake_of": "",
            "part": pd.NA,
        }
    for name, value in change.items():
        spoilt.loc[row, name] = value
    assert any(fault in found for found in find_faults(spoilt))


def test_parts_must_rise_with_the_years(films):
    spoilt = films.copy()
    rings = spoilt["franchise"] == "The Lord of the Rings"
    spoilt.loc[rings, "part"] = [2, 1, 3]
    assert find_faults(spoilt) == ["franchise The Lord of the Rings: parts must rise with the years"]


def test_items_read_as_sentences_of_facts(films):
    items = to_items(films).set_index("item_id")
    towers = items.loc["the-lord-of-the-rings-the-two-towers-2002"]
    assert towers["franchise"] == "The Lord of the Rings, part 2"
    assert towers["directors"] == "Peter Jackson"
    assert items.loc["the-matrix-1999", "directors"] == "Lana Wachowski, Lilly Wachowski"
    assert not items.map(lambda value: "|" in str(value)).any(axis=None)


def test_a_missing_or_spoilt_table_is_refused(films, tmp_path):
    with pytest.raises(DataError, match="it is not there"):
        load_films(tmp_path / "films.csv")
    films.assign(country="").to_csv(tmp_path / "films.csv", index=False)
    with pytest.raises(DataError, match=r"faults, the first: .*country must be 1 to 1 different values"):
        load_films(tmp_path / "films.csv")


@pytest.mark.parametrize(
    ("title", "key"),
    [
        ("Amélie", "amelie"),
        ("Schindler's List", "schindlers list"),
        ("WALL·E", "wall e"),
        ("Bonnie & Clyde: A", "bonnie and clyde a"),
    ],
)
def test_titles_are_compared_without_case_accents_and_punctuation(title, key):
    assert plain(title) == key


def test_mismatch_is_a_namesake_of_another_year_only():
    ours = pd.DataFrame({"title": ["Heat", "Alien", "Ran", "Emma."], "year": [1995, 1979, 1985, 2020]})
    theirs = pd.DataFrame({"title": ["HEAT", "Alien", "Alien", "Emma", "Emma"], "year": [1996, 1979, 1992, 1996, 1932]})
    found = find_mismatches(ours, theirs)
    assert found.to_numpy().tolist() == [["Heat", 1995, "1996"], ["Emma.", 2020, "1932|1996"]]


def test_a_mismatch_without_a_reason_and_a_reason_without_a_mismatch_are_reported():
    found = pd.DataFrame({"title": ["Heat", "Emma"], "ours": [1995, 2020], "theirs": ["1996", "1932|1996"]})
    reviewed = pd.DataFrame(
        {
            "title": ["Heat", "Emma", "Ran"],
            "ours": ["1995", "2020", "1985"],
            "theirs": ["1996", "1932|1996", "1986"],
            "reason": ["", "others", "why"],
        }
    )
    unsettled, idle = find_unsettled(found, reviewed)
    assert unsettled == ["Heat (1995): the other table has 1996"]
    assert idle == ["Ran (1985): the other table has 1986"]


@pytest.mark.skipif(not WIKIPEDIA.is_file(), reason="needs wikipedia-movies.parquet below $DAREC_SHARED")
def test_every_mismatch_with_wikipedia_is_settled(films):
    found = find_mismatches(films, pd.read_parquet(WIKIPEDIA, columns=["title", "year"]))
    assert len(found) > 50
    assert find_unsettled(found, pd.read_csv(REVIEWED, dtype=str, keep_default_na=False)) == ([], [])
