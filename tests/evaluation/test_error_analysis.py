import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from darec.cli import main
from darec.data.catalog import Catalog
from darec.data.splits import Cases
from darec.errors import DataError, RunError
from darec.evaluation.error_analysis import (
    NOT_NAMED,
    category_metrics,
    compare_runs,
    find_ranks,
    identify_run,
    item_categories,
    items_in,
    list_cases,
    read_ranks,
    recommended_instead,
    select_cases,
    summarize_cases,
    write_ranks,
)
from darec.evaluation.protocol import rank_cases, summarize
from darec.evaluation.slices import slice_metrics
from darec.serving import Recommender

GENRES = ["Drama", "Drama|War", "War", "Comedy", "(no genres listed)", "Drama"]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    ids = [f"i{number}" for number in range(6)]
    return Catalog(pd.DataFrame({"item_id": ids, "title": list("ABCDEF"), "genres": GENRES}))


@pytest.fixture
def ranks() -> pd.DataFrame:
    """Five users; the last three miss."""
    return pd.DataFrame(
        {
            "user_id": ["u1", "u2", "u3", "u4", "u5"],
            "target": [0, 1, 2, 3, 0],
            "rank": [1, 10, 11, 40, 500],
            "rank_seen_kept": [2, 11, 12, 41, 501],
            "history_length": [1, 5, 6, 10, 11],
            "target_popularity": [0, 4, 5, 19, 20],
            "top_items": [[0, 1], [1, 2], [0, 1], [0, 4], [3, 2]],
        }
    )


@pytest.fixture
def cases(ranks: pd.DataFrame, catalog: Catalog) -> pd.DataFrame:
    return list_cases(ranks, catalog)


@pytest.fixture
def evaluated(
    film_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Recommender, dict, pd.DataFrame]:
    """The film run, what `python -m darec evaluate` writes about it, and its cases as the page reads them."""
    monkeypatch.setenv("DAREC_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(film_run), "--out", str(tmp_path / "metrics.json"), "--device", "cpu"])
    assert not stop.value.code
    path = find_ranks(film_run)
    assert path == film_run / "ranks-test.parquet"
    recommender = Recommender.load(film_run)
    ranks = read_ranks(path, recommender.split.test)
    path.unlink()
    return recommender, json.loads((tmp_path / "metrics.json").read_text()), list_cases(ranks, recommender.catalog)


def test_slices_and_metrics_equal_those_of_the_command_line(evaluated):
    recommender, metrics, cases = evaluated
    assert json.loads(json.dumps(slice_metrics(cases))) == metrics["slices"]
    assert summarize(cases, recommender.catalog, recommender.split)["seen_removed"] == metrics["seen_removed"]
    summary = summarize_cases(cases)
    assert summary["users"] == metrics["users"] == 60
    for name in ("hr@10", "ndcg@10", "mrr"):
        assert summary[name] == metrics["seen_removed"][name]


def test_a_filter_on_one_class_gives_that_class_of_the_command_line(evaluated):
    _, metrics, cases = evaluated
    classes = [row for row in metrics["slices"] if row["slice"] == "history_length"]
    assert len(classes) > 1
    for row in classes:
        summary = summarize_cases(select_cases(cases, history_length=(row["from"], row["to"] or 10**9)))
        assert {name: summary[name] for name in ("users", "hr@10", "ndcg@10")} == {
            name: row[name] for name in ("users", "hr@10", "ndcg@10")
        }


def test_a_case_carries_its_titles_and_whether_it_hit(cases: pd.DataFrame):
    assert cases["title"].tolist() == ["A", "B", "C", "D", "A"]
    assert cases["first"].tolist() == ["A", "B", "A", "A", "D"]
    assert cases["hit"].tolist() == [True, True, False, False, False]
    assert cases["cold"].tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("asked", "users"),
    [
        ({}, "12345"),
        ({"history_length": (5, 10)}, "234"),
        ({"target_popularity": (4, 5)}, "23"),
        ({"rank": (10, 40)}, "234"),
        ({"cold": True}, "12"),
        ({"cold": False}, "345"),
        ({"targets": np.array([True, False, False, True, False, False])}, "145"),
        ({"cold": False, "rank": (11, 40), "history_length": (10, 99)}, "4"),
        ({"rank": (41, 42)}, ""),
    ],
)
def test_cases_are_selected_by_all_that_is_asked(cases: pd.DataFrame, asked: dict, users: str):
    assert select_cases(cases, **asked)["user_id"].tolist() == [f"u{number}" for number in users]


def test_no_cases_have_no_metrics(cases: pd.DataFrame):
    summary = summarize_cases(cases[:0])
    assert summary["users"] == 0
    assert np.isnan([summary["hr@10"]["mean"], summary["mrr"]["low"], summary["median_rank"]]).all()


def test_genres_are_split_and_an_item_without_one_is_named_so(catalog: Catalog):
    genres = [("Drama",), ("Drama", "War"), ("War",), ("Comedy",), (NOT_NAMED,), ("Drama",)]
    assert item_categories(catalog) == {"genres": genres}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a|b", "b | a", "a", "a"], [("a", "b"), ("b", "a"), ("a",), ("a",)]),
        (["a, b", "b", "", "a"], [("a", "b"), ("b",), (NOT_NAMED,), ("a",)]),
        (["X > Y > a > 1 > p", "X > Y > a > 1", "X > Y > b", "X > Y > b"], [("a > 1",), ("a > 1",), ("b",), ("b",)]),
        (["X > a", "X", "X > a", "X"], [("a",), ("X",), ("a",), ("X",)]),
        (["rock and roll", "rock and roll", "soul", "soul"], [("rock and roll",)] * 2 + [("soul",)] * 2),
    ],
)
def test_categories_of_every_spelling(values: list[str], expected: list[tuple[str, ...]]):
    items = pd.DataFrame({"item_id": list("pqrs"), "title": list("PQRS"), "kind": values})
    assert item_categories(Catalog(items)) == {"kind": expected}


def test_genres_without_a_sign_between_them_are_told_apart_by_their_words():
    sets = [f"{a} {b}" for a in "ABCDEFGHIJKL" for b in "ABCDEFGHIJKL" if a < b] * 2
    items = pd.DataFrame({"item_id": [str(n) for n in range(len(sets))], "title": "T", "genres": sets})
    assert item_categories(Catalog(items))["genres"][:2] == [("A", "B"), ("A", "C")]


def test_columns_that_tell_items_apart_are_no_categories():
    items = pd.DataFrame({"item_id": list("pqrs"), "title": list("PQRS"), "plot": list("wxyz"), "size": [1, 1, 2, 2]})
    assert item_categories(Catalog(items)) == {}


def test_the_attribute_that_names_most_items_comes_first():
    few, all_of_them = ["x", "y", "x", "y", "", ""], list("abcabc")
    items = pd.DataFrame({"item_id": list("pqrstu"), "title": "T", "series": few, "genres": all_of_them})
    assert list(item_categories(Catalog(items))) == ["genres", "series"]


def test_items_of_a_category():
    categories = [("Drama",), ("Drama", "War"), ("War",)]
    assert items_in(categories, ["War"]).tolist() == [False, True, True]
    assert items_in(categories, []).tolist() == [False, False, False]


def test_metrics_by_category_count_an_item_in_each_of_its_own(cases: pd.DataFrame):
    categories = [tuple(genres.split("|")) for genres in GENRES]
    rows = {row["category"]: row for row in category_metrics(cases, categories, "genres")}
    assert list(rows) == ["Drama", "War", "Comedy"]  # most users first
    assert [row["users"] for row in rows.values()] == [3, 2, 1]
    assert rows["Drama"]["hr@10"]["mean"] == pytest.approx(2 / 3)  # ranks 1, 10, 500
    assert rows["War"]["ndcg@10"]["mean"] == pytest.approx(0.5 / np.log2(11))  # ranks 10, 11
    assert not rows["Drama"]["reliable"]


def test_what_was_recommended_instead_by_hand(cases: pd.DataFrame):
    categories = [tuple(genres.split("|")) for genres in GENRES]
    categories[4] = (NOT_NAMED,)
    table = recommended_instead(cases, categories).set_index("category")
    # Missed: u3 (War; lists Drama, Drama|War), u4 (Comedy; lists Drama, none), u5 (Drama; lists Comedy, War).
    assert table["of_targets"].to_dict() == pytest.approx({"War": 1 / 3, "Comedy": 1 / 3, "Drama": 1 / 3, NOT_NAMED: 0})
    lists = {"Drama": (0.75 + 0.5) / 3, "War": (0.25 + 0.5) / 3, "Comedy": 0.5 / 3, NOT_NAMED: 0.5 / 3}
    assert table["of_lists"].to_dict() == pytest.approx(lists)
    assert table["difference"].tolist() == sorted(table["difference"], reverse=True)
    assert table[["of_targets", "of_lists"]].sum().tolist() == pytest.approx([1, 1])


def test_nothing_missed_gives_no_rows(cases: pd.DataFrame):
    assert recommended_instead(cases[cases["hit"]], [("a",)] * 6).empty


def test_two_runs_are_paired_by_user_whatever_their_order(cases: pd.DataFrame):
    other = cases.assign(rank=[1, 20, 5, 10, 2]).iloc[::-1]
    compared = compare_runs(cases, other)
    assert (compared.wins, compared.losses, compared.ties) == (1, 3, 1)
    assert (compared.hits_gained, compared.hits_lost) == (1, 3)
    gains = [0, 1 / np.log2(11), -1 / np.log2(6), -1 / np.log2(11), -1 / np.log2(3)]
    assert compared.ndcg["mean"] == pytest.approx(np.mean(gains))
    assert compared.ndcg["low"] < compared.ndcg["mean"] < compared.ndcg["high"]
    assert compared.pairs["user_id"].tolist() == ["u5", "u3", "u4", "u1", "u2"]
    assert compared.pairs["difference"].tolist() == pytest.approx(
        [1 / 500 - 1 / 2, 1 / 11 - 1 / 5, 1 / 40 - 0.1, 0, 0.05]
    )


def test_a_part_is_compared_on_its_own_users(cases: pd.DataFrame):
    compared = compare_runs(cases[cases["user_id"] == "u2"], cases.assign(rank=[9, 9, 9, 9, 9]))
    assert (compared.wins, compared.losses, compared.ties) == (0, 1, 0)


@pytest.mark.parametrize("other", [{"target": [0, 1, 2, 3, 4]}, {"user_id": ["u1", "u2", "u3", "u4", "nobody"]}])
def test_runs_on_other_questions_are_not_compared(cases: pd.DataFrame, other: dict):
    with pytest.raises(DataError, match="on the same questions"):
        compare_runs(cases, cases.assign(**other))


def test_a_rank_file_of_a_folder_that_cannot_be_written_is_kept_in_the_cache(
    film_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DAREC_CACHE", str(tmp_path / "cache"))
    recommender = Recommender.load(film_run)
    ranks = rank_cases(recommender.scorer, recommender.split, "test")
    replace, in_folder = __import__("os").replace, film_run / "ranks-test.parquet"

    def refuse(source, target):
        if Path(target) == in_folder:
            raise PermissionError(13, "read-only")
        replace(source, target)

    monkeypatch.setattr("darec.evaluation.error_analysis.os.replace", refuse)
    kept = write_ranks(film_run, ranks)
    assert kept == tmp_path / "cache" / "ranks" / f"{identify_run(film_run)}-test.parquet"
    assert find_ranks(film_run) == kept
    assert read_ranks(kept, recommender.split.test)["rank"].tolist() == ranks["rank"].tolist()


def test_a_rank_file_that_can_be_kept_nowhere_is_said_so(film_run: Path, tmp_path: Path, monkeypatch, ranks):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DAREC_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("darec.evaluation.error_analysis.os.replace", lambda *paths: Path("/nowhere/at/all").unlink())
    assert write_ranks(film_run, ranks) is None
    assert find_ranks(film_run) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ranks: ranks.drop(columns="top_items"), "has a column top_items"),
        (lambda ranks: ranks.iloc[::-1], "has others"),
        (lambda ranks: ranks.assign(target=0), "has others"),
    ],
)
def test_a_rank_file_of_other_cases_is_refused(tmp_path: Path, ranks: pd.DataFrame, change, message: str):
    path = tmp_path / "ranks.parquet"
    change(ranks).to_parquet(path)
    with pytest.raises(DataError, match=message):
        read_ranks(path, Cases(ranks["user_id"].tolist(), [np.array([0])] * 5, ranks["target"].to_numpy()))


def test_a_broken_rank_file_is_refused(tmp_path: Path):
    (tmp_path / "ranks.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="must be a Parquet file"):
        read_ranks(tmp_path / "ranks.parquet", Cases([], [], np.array([], np.int64)))


def test_the_run_id_follows_the_content(film_run: Path, tmp_path: Path):
    for name, text in (("a", "{}"), ("b", "{}"), ("c", '{"x": "y"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(text)
    a, b, c = (identify_run(tmp_path / name) for name in "abc")
    assert a == b != c
    assert len(a) == 12
    with pytest.raises(RunError, match="not a finished run"):
        identify_run(tmp_path)
