import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import resources, state
from app.widgets import literal
from darec.data.interactions import Dataset
from darec.runs import write_json
from darec.serving import Recommender, find_runs

ENTRY = Path(__file__).parents[2] / "streamlit_app.py"


class WordOverlap:
    """Scores an item by the words it shares with the history, titles that the catalogue lacks included."""

    def __init__(self, titles: list[str]) -> None:
        self.titles = titles

    def score(self, histories):
        words = [set(title.casefold().split()) for title in self.titles]
        read = [
            {
                word
                for entry in history
                for word in (entry if isinstance(entry, str) else self.titles[entry]).casefold().split()
            }
            for history in histories
        ]
        return np.array([[len(own & known) for own in words] for known in read], dtype=np.float32)


@pytest.fixture
def page(film_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AppTest:
    """The app as it starts with `-- --run films`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py", "--run", str(film_run)])
    return AppTest.from_file(str(ENTRY), default_timeout=30)


@pytest.fixture
def reading_page(page: AppTest, film_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """The same, with a model that reads titles."""
    info = {"kind": "darec", "name": "words", "data_fingerprint": "films"}
    model = Recommender(info, film_dataset, WordOverlap(film_dataset.catalog.titles), reads_text=True)
    monkeypatch.setattr(resources, "load_recommender", lambda run: model)
    return page


def table(page: AppTest):
    assert not page.exception
    return page.dataframe[0].value


def history(page: AppTest) -> list[str]:
    """Titles of the history, oldest first, as shown."""
    rows = [re.match(r":gray\[(\d+)\]\s+(.*)", element.value) for element in page.markdown]
    shown = {int(row[1]): re.sub(r"\\(.)", r"\1", row[2]) for row in rows if row}
    return [shown[number] for number in sorted(shown)]


def button(page: AppTest, label: str):
    return next(element for element in page.button if label in (element.label, element.help))


def test_the_first_screen_shows_a_filled_in_example(page: AppTest):
    page.run()
    assert len(history(page)) == 8
    assert table(page)["#"].tolist() == list(range(1, 11))
    assert "Held out" in page.caption[2].value


def test_probabilities_fall_and_sum_to_all_over_all_candidates(page: AppTest):
    page.run()
    page.number_input(key="k").set_value(20).run()
    probabilities = table(page)["Probability"]
    assert len(probabilities) == 12  # 20 films less the 8 seen
    assert probabilities.sum() == pytest.approx(100)
    assert probabilities.is_monotonic_decreasing


def test_seen_items_can_be_kept(page: AppTest):
    page.query_params["history"] = "f3"
    page.run()
    page.number_input(key="k").set_value(20)
    page.toggle(key="exclude_seen").set_value(False).run()
    assert "Harbour of Ghosts (1966)" in table(page)["Title"].tolist()


def test_typing_finds_titles_and_a_click_adds_one(page: AppTest):
    page.query_params["history"] = "f3"
    page.run()
    page.text_input(key="query").set_value("lig").run()
    assert [element.label for element in page.button if (element.key or "").startswith("add-")] == [
        r"The Lighthouse Keeper \(1951\)",
        r"Lightning over Harbour \(1958\)",
        r"A Light in the Attic \(1964\)",
    ]
    page.button(key="add-1").click().run()
    assert history(page) == ["Harbour of Ghosts (1966)", "Lightning over Harbour (1958)"]
    assert page.query_params["history"] == "f3~f1"
    assert page.text_input(key="query").value == ""


def test_an_entry_moves_and_is_removed(page: AppTest):
    page.query_params["history"] = "f0~f3~f7"
    page.run()
    page.button(key="up-0").click().run()
    assert page.query_params["history"] == "f3~f0~f7"
    page.button(key="down-2").click().run()
    assert page.query_params["history"] == "f3~f7~f0"
    page.button(key="remove-1").click().run()
    assert history(page) == ["Harbour of Ghosts (1966)", "The Lighthouse Keeper (1951)"]


def test_the_same_item_can_stand_twice(page: AppTest):
    page.query_params["history"] = "f0~f3~f0~f5"
    page.run()
    page.button(key="remove-2").click().run()
    assert page.query_params["history"] == "f0~f3~f5"


def test_a_cleared_history_stays_empty_and_says_what_to_do(page: AppTest):
    page.run()
    button(page, "Clear").click().run()
    assert page.query_params["history"] == ""
    assert history(page) == []
    assert "draw a test user" in page.info[0].value
    assert not page.error


def test_a_drawn_user_brings_history_and_target_into_the_link(page: AppTest, film_dataset: Dataset):
    page.query_params["history"] = "f0"
    page.run()
    button(page, "Draw a test user").click().run()
    user_id = page.query_params["user"]
    assert "history" not in page.query_params
    mine = film_dataset.interactions["user_id"] == user_id
    watched = film_dataset.interactions.loc[mine, "item_id"].map(film_dataset.catalog.index_of)
    *before, target = [film_dataset.catalog.titles[index] for index in watched]
    assert history(page) == before
    assert re.sub(r"\\(.)", r"\1", page.caption[2].value).startswith(f"★ Held out: **{target}**, rank **")
    page.number_input(key="k").set_value(20).run()
    assert table(page)["Title"].tolist().count(f"★ {target}") == 1


def test_the_rank_of_the_target_is_its_row_in_the_list(page: AppTest):
    page.query_params["user"] = "user 7"
    page.run()
    page.number_input(key="k").set_value(20).run()
    rows = table(page)
    row = rows[rows["Title"].str.startswith("★")].iloc[0]
    assert f"rank **{row['#']}** of {len(rows)}" in page.caption[2].value


def test_a_new_title_is_read_as_text(reading_page: AppTest):
    reading_page.query_params["history"] = "f17"
    reading_page.run()
    reading_page.text_input(key="query").set_value("paper astronaut strikes again").run()
    reading_page.button(key="add-text").click().run()
    assert history(reading_page)[-1] == "paper astronaut strikes again :orange-badge[new text]"
    assert set(table(reading_page)["Title"][:2]) == {
        "The Paper Astronaut (1969)",
        "Return of the Paper Astronaut (1972)",
    }


def test_a_model_that_reads_no_text_offers_no_new_titles_and_says_so_in_a_link_with_one(page: AppTest):
    page.query_params["history"] = "f17~.Something new"
    page.run()
    page.text_input(key="query").set_value("zzz").run()
    assert not [element for element in page.button if element.key == "add-text"]
    assert history(page)[-1] == "Something new :gray-badge[not read by this model]"


def test_an_error_stays_in_its_place_and_the_page_usable(page: AppTest):
    page.query_params["history"] = ".Something new"
    page.run()
    assert "cannot read titles" in page.error[0].value
    page.text_input(key="query").set_value("kite").run()
    page.button(key="add-19").click().run()
    assert not page.error
    assert len(table(page)) == 10


def test_what_a_link_names_in_vain_is_said(page: AppTest):
    page.query_params["history"] = "f0~f99"
    page.query_params["user"] = "nobody"
    page.run()
    page.query_params["pinned"] = "f1~f98"
    page.run()
    assert [element.value for element in page.warning] == [
        literal("This model's data has no test user 'nobody'. Draw another."),
        literal("The catalogue has no item_id 'f99'; left out of the history."),
        literal("The catalogue has no item_id 'f98'; left out of the pinned history."),
    ]
    assert history(page) == ["The Lighthouse Keeper (1951)"]


@pytest.mark.parametrize("file", ["recommend", "layers", "attention", "errors", "method"])
def test_markup_in_a_link_is_shown_as_it_is_written(page: AppTest, file: str):
    page.query_params["user"] = "![x](http://example.com/p.png)"
    page.switch_page(f"app/app_pages/{file}.py").run()
    assert not page.exception
    [warning] = page.warning
    assert r"'\!\[x\]\(http\://example\.com/p\.png\)'" in warning.value


def test_markup_in_an_error_is_shown_as_it_is_written(page: AppTest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py", "--run", "![x](p.png)"])
    page.run()
    assert page.error[0].value.startswith(r"\!\[x\]\(p\.png\) is not a run")


def test_a_long_history_is_paged_from_its_recent_end(page: AppTest):
    page.query_params["history"] = "~".join(f"f{number % 20}" for number in range(25))
    page.run()
    newest = history(page)
    assert len(newest) == 20
    assert newest[-1] == "The Paper Astronaut (1969)"
    page.pagination(key="history_page").set_value(2).run()
    assert history(page) == newest[-5:]  # entries 1 to 5 are the same films as 21 to 25
    page.button(key="remove-0").click().run()
    assert page.query_params["history"].startswith("f1~f2~")


def test_an_added_item_is_in_sight(page: AppTest):
    page.query_params["history"] = "~".join(f"f{number % 20}" for number in range(25))
    page.run()
    page.pagination(key="history_page").set_value(2).run()
    page.text_input(key="query").set_value("kite").run()
    page.button(key="add-19").click().run()
    assert history(page)[-1] == "Kite Season (2019)"


def test_a_title_of_the_catalogue_is_not_offered_as_new(reading_page: AppTest):
    reading_page.run()
    reading_page.text_input(key="query").set_value("kite season").run()
    assert [element.key for element in reading_page.button if (element.key or "").startswith("add-")] == ["add-19"]


def test_titles_full_of_marks_are_shown_as_they_are(page: AppTest):
    page.query_params["history"] = "f13"
    page.run()
    assert history(page) == ["=1+1: *Love* in [Two] $Parts$ :star: <b> (1996)"]


def test_without_a_run_the_page_says_how_to_make_one(page: AppTest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py"])
    monkeypatch.setattr(resources, "DEMO", tmp_path)
    page.run()
    assert not page.exception
    assert [element.value for element in page.code] == [
        "python -m darec data prepare ml-100k --out data/ml-100k",
        "python -m darec train --preset smoke --data data/ml-100k --out runs/smoke",
    ]


def test_a_folder_that_is_no_run_is_named(page: AppTest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py", "--run", str(tmp_path / "nothing")])
    page.run()
    assert not page.exception
    assert "nothing is not a run" in page.error[0].value


def test_runs_given_come_before_runs_found_and_none_twice(film_run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(film_run.parent)
    monkeypatch.setattr(resources, "RUNS", Path("."))
    monkeypatch.setattr(resources, "DEMO", Path("demo"))
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py", "--run", "elsewhere", "--run", str(film_run)])
    assert list(resources.list_runs()) == ["elsewhere", "films"]


def test_the_shipped_demo_comes_between_runs_given_and_runs_found(
    film_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for folder, name in (("sasrec", "SASRec"), ("darec", "DARec"), ("without-cf", "DARec retrained without CF")):
        shutil.copytree(film_run, tmp_path / "demo" / folder)
        write_json(tmp_path / "demo" / folder / "run.json", {"name": name})
    shutil.copytree(film_run, tmp_path / "runs" / "own")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resources, "DEMO", tmp_path / "demo")
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py", "--run", str(film_run)])
    names = ["films", "Demo: DARec", "Demo: DARec retrained without CF", "Demo: SASRec", "own"]
    assert list(resources.list_runs()) == names


def test_simulated_viewers_are_named_wherever_their_data_are(
    page: AppTest, film_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    label = "Simulated viewers of real films"
    assert not any(label in caption.value for caption in page.caption)
    shutil.copytree(film_run, tmp_path / "demo" / "darec")  # so the films' run outside has the demo's data
    monkeypatch.setattr(resources, "DEMO", tmp_path / "demo")
    page.run()
    assert any(label in caption.value for caption in page.caption)


def test_all_that_ships_fits_into_the_cache_at_once():
    assert len(find_runs(ENTRY.parent / "assets" / "models" / "demo")) == len(resources.DEMO_RUNS) <= resources.LOADED


def test_another_data_set_drops_the_history(page: AppTest, film_dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    def model(fingerprint: str) -> Recommender:
        info = {"kind": "darec", "name": "words", "data_fingerprint": fingerprint}
        return Recommender(info, film_dataset, WordOverlap(film_dataset.catalog.titles), reads_text=True)

    monkeypatch.setattr(resources, "load_recommender", lambda run: model("one"))
    page.query_params["history"] = "f3"
    page.run()
    assert history(page) == ["Harbour of Ghosts (1966)"]
    monkeypatch.setattr(resources, "load_recommender", lambda run: model("two"))
    page.run()
    assert len(history(page)) == state.EXAMPLE_LENGTH
    assert "history" not in page.query_params
    page.switch_page("app/app_pages/data.py").run()
    assert "history" not in page.query_params  # nor does a change of page bring it back
