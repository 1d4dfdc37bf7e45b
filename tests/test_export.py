import csv
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from darec.evaluation.error_analysis import identify_run, list_cases
from darec.evaluation.protocol import rank_cases
from darec.export import _rank_figure, disarm, to_csv, write_case_report
from darec.serving import Recommender


def read_back(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\rx", "\nx", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20x", " =1"]
)
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(text: str):
    assert disarm(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "Heat (1995)", "a=b", "Spider-Man", "1-2", "a, -b", "me@home", "Å", "3"])
def test_other_texts_stay_as_they_are(text: str):
    assert disarm(text) == text


@pytest.mark.parametrize("text", ["x;=1+1", "x\t@y", 'x;"=1+1', "x\n-1", "x; \uff1d1"])
def test_no_cell_begins_in_the_middle_where_another_sign_parts_cells(text: str):
    for delimiter in ";\t":
        for line in csv.reader(io.StringIO(disarm(text), newline=""), delimiter=delimiter):
            assert not any(
                cell.lstrip(" \"'").startswith(("=", "+", "-", "@", "\uff1d")) and cell[0] != "'" for cell in line
            )


def test_numbers_stay_numbers_and_texts_are_disarmed_header_included():
    table = pd.DataFrame(
        {
            "=name": ["-5", "Café"],
            "rank": [-5, 7],
            "share": [-0.5, np.nan],
            "tags": [["=a", "b"], []],
            "hit": [True, False],
        }
    )
    content = to_csv(table)
    assert content.startswith(b"\xef\xbb\xbf")
    assert read_back(content) == [
        ["'=name", "rank", "share", "tags", "hit"],
        ["'-5", "-5", "-0.5", "'=a, b", "True"],
        ["Café", "7", "", "", "False"],
    ]


def test_quotes_and_line_breaks_come_back(tmp_path: Path):
    table = pd.DataFrame({"note": ['She said "no",\nthen yes']})
    assert read_back(to_csv(table))[1] == ['She said "no",\nthen yes']


class Page(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def film_recommender(film_run: Path) -> Recommender:
    return Recommender.load(film_run)


@pytest.fixture(scope="module")
def film_cases(film_recommender: Recommender) -> pd.DataFrame:
    ranks = rank_cases(film_recommender.scorer, film_recommender.split, "test")
    return list_cases(ranks, film_recommender.catalog)


def report(recommender: Recommender, cases: pd.DataFrame, position: int, run: Path, **extra) -> Page:
    case = cases.iloc[position].to_dict()
    return Page(write_case_report(recommender, case, cases["rank"].to_numpy(), run_id=identify_run(run), **extra))


def test_a_report_says_which_run_which_seed_and_what_was_asked(film_recommender, film_cases, film_run: Path):
    page = report(film_recommender, film_cases, 7, film_run, link="http://127.0.0.1:8501/errors?user=user+7")
    case = film_cases.iloc[7]
    for words in (
        f"id {identify_run(film_run)}",
        "Seed0",
        str(film_recommender.info["data_fingerprint"]),
        "user 7",
        f"{case['title']}: rank {case['rank']}",
        "60 test users",
    ):
        assert words in page.text
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == [
        "http://127.0.0.1:8501/errors?user=user+7"
    ]


def test_a_report_lists_what_the_model_recommends_and_the_whole_history(film_recommender, film_cases, film_run: Path):
    page = report(film_recommender, film_cases, 7, film_run)
    history = film_recommender.split.test.histories[7].tolist()
    for line in film_recommender.recommend(history, 10):
        assert line.title in page.text
        assert f"{line.probability:.2%}" in page.text
    assert page.text.index(film_recommender.catalog.titles[history[-1]]) > page.text.index("History, the newest first")
    assert [attributes["start"] for tag, attributes in page.tags if tag == "ol"] == [str(len(history))]


def test_a_report_needs_nothing_from_outside(film_recommender, film_cases, film_run: Path):
    page = report(film_recommender, film_cases, 3, film_run)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "link", "iframe", "object", "embed", "use"})
    assert not [1 for _, attributes in page.tags for name in ("src", "href", "xlink:href") if name in attributes]
    policies = [attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_the_figures_show_the_probabilities_and_every_user_once(film_recommender, film_cases, film_run: Path):
    position = int(np.flatnonzero(film_cases["rank"] == 2)[0])
    page = report(film_recommender, film_cases, position, film_run)
    bars = [attributes for tag, attributes in page.tags if tag == "rect"]
    listed, classes = bars[:10], bars[10:]
    history = film_recommender.split.test.histories[position].tolist()
    probabilities = [line.probability for line in film_recommender.recommend(history, 10)]
    widths = [float(bar["width"]) for bar in listed]
    assert widths == pytest.approx([420 * value / max(probabilities) for value in probabilities], abs=0.06)
    assert [bar["class"] for bar in listed] == ["bar", "mark"] + ["bar"] * 8
    assert [bar["class"] for bar in classes].count("mark") == 1
    assert classes[1]["class"] == "mark"  # ranks 2 and 3
    counts = np.histogram(film_cases["rank"], [1, 2, 4, 8, 16, 32])[0][: len(classes)]
    widths = [float(bar["width"]) for bar in classes]
    assert widths == pytest.approx([420 * count / counts.max() for count in counts], abs=0.06)


def test_no_label_of_the_ranks_meets_another_or_the_edge():
    page = Page(_rank_figure(np.array([1, 2, 3, 1500, 70_000]), 1500))
    assert "rank 1,024 to 2,047" in page.text
    assert "rank 65,536 to 131,071" in page.text
    edge, lines = float(page.tags[1][1]["viewbox"].split()[2]), {}
    for tag, attributes in page.tags:
        if tag == "text":
            lines.setdefault(float(attributes["y"]), []).append(attributes)
    assert np.diff(sorted(lines)).min() >= 20  # pixels, for letters of 13
    for label, count in lines.values():  # one ends before the bar, the other begins behind it
        assert label["text-anchor"] == "end"
        assert 200 < float(label["x"]) < float(count["x"]) < edge - 50


def test_a_report_carries_the_label_of_its_data_as_it_is_written(film_recommender, film_cases, film_run: Path):
    labelled = report(film_recommender, film_cases, 7, film_run, label="Simulated <i>viewers</i> & no evidence.")
    assert "Terms of the data<i>Ask</i>" in report(film_recommender, film_cases, 7, film_run, terms="<i>Ask</i>").text
    assert "Simulated <i>viewers</i> & no evidence." in labelled.text
    assert "i" not in {tag for tag, _ in labelled.tags}
    bare = report(film_recommender, film_cases, 7, film_run)
    assert [tag for tag, _ in labelled.tags].count("strong") == 1
    assert "strong" not in {tag for tag, _ in bare.tags}


def test_titles_and_notes_cannot_write_into_the_page(film_recommender, film_cases, film_run: Path):
    notes = pd.DataFrame(
        [
            {
                "author": "<b>Ada",
                "run_name": "&run",
                "tags": ["<i>"],
                "note": "<script>alert(1)</script>",
                "written_at": "2020",
            }
        ]
    )
    position = next(i for i, title in enumerate(film_cases["title"]) if title.startswith("=1+1"))
    page = report(film_recommender, film_cases, position, film_run, link='"><script>', notes=notes)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "b", "i"})
    assert "<script>alert(1)</script>" in page.text
    assert "=1+1: *Love* in [Two] $Parts$ :star: <b>" in page.text
