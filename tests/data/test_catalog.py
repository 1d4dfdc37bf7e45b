import pandas as pd
import pytest

from darec.data.catalog import Catalog, with_year
from darec.errors import DataError

FILMS = Catalog(
    pd.DataFrame(
        {
            "item_id": list("abcdefgh"),
            "title": [
                "The Godfather",
                "Godfather: Part II, The",
                "Cinderella",
                "Cinderella",
                "Amélie",
                "Schindler's List",
                "Star Trek: The Wrath",
                "A Star Is Born",
            ],
            "year": [1972, 1974, 1950, 1997, 2001, 1993, None, 1976],
            "genres": ["Crime|Drama", "Crime", "", None, "(no genres listed)", "Drama War", "Sci-Fi", "Drama"],
            "title_source": ["x"] * 8,
            "price": [1.0] * 8,
        }
    )
)


def found(query: str, limit: int = 10) -> str:
    return "".join(FILMS.item_ids[FILMS.search(query, limit)])


def test_titles_carry_the_year_and_texts_what_else_is_known_in_words():
    assert FILMS.titles[0] == "The Godfather (1972)"
    assert FILMS.short_texts[0] == "The Godfather (1972), Crime, Drama"
    assert FILMS.full_texts[0] == "The Godfather (1972). genres: Crime, Drama"
    assert FILMS.full_texts[4] == FILMS.short_texts[4] == "Amélie (2001)"
    assert FILMS.short_texts[5] == "Schindler's List (1993), Drama War"


def test_category_paths_keep_their_steps_and_several_are_told_apart():
    items = pd.DataFrame({"item_id": ["a"], "title": ["Brush"], "category": ["Beauty > Hair | Tools > Brushes"]})
    assert Catalog(items).full_texts == ["Brush. category: Beauty > Hair, Tools > Brushes"]
    assert Catalog(items).short_texts == ["Brush"]


@pytest.mark.parametrize(
    ("title", "indices"),
    [
        ("the godfather", [0]),
        ("Godfather", [0]),
        ("Godfather, The", [0]),
        ("THE  GODFATHER (1972)", [0]),
        ("Godfather (1973)", []),
        ("The Godfather: Part II", [1]),
        ("Cinderella", [2, 3]),
        ("Cinderella (1997)", [3]),
        ("amelie", [4]),
        ("Nothing", []),
        ("", []),
    ],
)
def test_find_ignores_case_accents_article_and_a_year_not_given(title, indices):
    assert FILMS.find(title) == indices


def test_find_prefers_titles_written_exactly_so():
    catalog = Catalog(pd.DataFrame({"item_id": ["a", "b"], "title": ["The Doors", "Doors"]}))
    assert catalog.find("Doors") == [1]
    assert catalog.find("The Doors") == [0]
    assert catalog.find("doors") == [0, 1]


def test_a_year_behind_the_title_counts_where_there_is_no_year_column():
    catalog = Catalog(pd.DataFrame({"item_id": ["a", "b"], "title": ["Heat (1995)", "Heat (1986)"]}))
    assert catalog.titles == ["Heat (1995)", "Heat (1986)"]
    assert catalog.find("heat (1986)") == [1]
    assert catalog.find("Heat") == [0, 1]


def test_titles_in_other_scripts_are_told_apart():
    catalog = Catalog(pd.DataFrame({"item_id": ["a", "b", "c"], "title": ["千と千尋 A", "もののけ A", "Røyksopp"]}))
    assert catalog.find("もののけ a") == [1]
    assert catalog.find("royksopp") == [2]
    assert catalog.search("千と", 5) == [0]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("god", "ab"),
        ("godf part", "b"),
        ("part godfather", "b"),
        ("amelie", "e"),
        ("AMÉL", "e"),
        ("schindlers", "f"),
        ("schindler\u2019s l", "f"),
        ("cinderella 1997", "d"),
        ("father", ""),
        ("star", "gh"),
        ("the", "abg"),
        ("god zzz", ""),
        ("  ?! ", ""),
        ("", ""),
    ],
)
def test_search_needs_every_word_to_begin_a_word_of_the_title(query, ids):
    assert found(query) == ids


def test_search_puts_the_equal_title_first_then_beginnings_then_the_rest():
    titles = ["Great Heat", "Heatwave", "The Heat", "Heat"]
    catalog = Catalog(pd.DataFrame({"item_id": list("abcd"), "title": titles}))
    assert [titles[i] for i in catalog.search("heat", 10)] == ["The Heat", "Heat", "Heatwave", "Great Heat"]
    assert [titles[i] for i in catalog.search("heat", 2)] == ["The Heat", "Heat"]


def test_search_agrees_with_looking_at_every_title():
    words = ["red", "redder", "blue", "bluish", "green", "gray", "great"]
    titles = [f"{a} {b}" for a in words for b in words if a != b]
    catalog = Catalog(pd.DataFrame({"item_id": [str(i) for i in range(len(titles))], "title": titles}))
    for query in ["r", "red", "gr b", "blu gre", "green red"]:
        slow = {
            i
            for i, title in enumerate(titles)
            if all(any(word.startswith(part) for word in title.split()) for part in query.split())
        }
        assert set(catalog.search(query, len(titles))) == slow


def test_an_unknown_item_id_is_refused():
    assert FILMS.index_of("c") == 2
    with pytest.raises(DataError, match="no item_id 'zz'"):
        FILMS.index_of("zz")


def test_a_year_is_not_written_twice():
    assert with_year("Heat (1995)", "1995") == "Heat (1995)"
    assert with_year("Heat", None) == "Heat"
