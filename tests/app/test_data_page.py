import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app import intake_widgets, resources
from app.widgets import literal
from darec.data.intake import prepare_into
from darec.data.interactions import Dataset
from darec.data.sources import PreparedReport
from darec.errors import DataError
from darec.serving import Recommender

ENTRY = Path(__file__).parents[2] / "streamlit_app.py"
LOANS = "Reader,Book,When\n" + "".join(
    f"reader {reader},{(reader + step) % 5},{step}\n" for reader in range(4) for step in range(4)
)
BOOKS = "Book,Name,shelf\n" + "".join(f"{book},Book number {book},blue\n" for book in range(5))
OWN = {"data": "Load your own"}


@pytest.fixture
def page(film_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AppTest:
    """The Data page of the app as it starts with `-- --run films`, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py", "--run", str(film_run)])
    app = AppTest.from_file(str(ENTRY), default_timeout=30)
    app.run()
    return app.switch_page("app/app_pages/data.py").run()


def view(page: AppTest, name: str) -> AppTest:
    page.segmented_control(key="data").set_value(name)
    page.run()
    assert not page.exception
    return page


def upload(page: AppTest, interactions: str = LOANS, items: str = BOOKS) -> AppTest:
    view(page, "Load your own")
    page.file_uploader(key="own_interactions").set_value(("loans.csv", interactions.encode(), "text/csv"))
    page.file_uploader(key="own_items").set_value(("books.csv", items.encode(), "text/csv"))
    page.run()
    assert not page.exception
    return page


def choose(page: AppTest, ours: str, theirs: str) -> None:
    next(box for box in page.selectbox if (box.key or "").startswith(f"own_{ours}_")).set_value(theirs).run()


def press(page: AppTest, label: str) -> AppTest:
    next(button for button in page.button if button.label == label).click()
    page.run()
    assert not page.exception
    return page


def test_the_numbers_are_those_of_the_models_data(page: AppTest, film_dataset: Dataset):
    page.run()
    assert not page.exception
    shown = {metric.label: metric.value for metric in page.metric}
    lengths = film_dataset.interactions["user_id"].value_counts()
    assert shown["Users"] == f"{len(lengths)}"
    assert shown["Items"] == "20"
    assert shown["Interactions"] == f"{len(film_dataset.interactions)}"
    assert shown["Median history"] == f"{lengths.median():.0f}"
    training = film_dataset.interactions.groupby("user_id").head(10_000)
    training = pd.concat([rows.iloc[:-2] for _, rows in training.groupby("user_id")])
    top = training["item_id"].value_counts().iloc[:2].sum() / len(training)
    assert shown["Top tenth"] == f"{top:.0%}"


def test_every_chart_has_its_numbers_and_a_download(page: AppTest, film_dataset: Dataset):
    page.run()
    assert len(page.get("plotly_chart")) == 2
    popularity, lengths = page.dataframe[0].value, page.dataframe[1].value
    assert popularity["interactions"].sum() == len(film_dataset.interactions) - 2 * 60
    assert lengths["users"].sum() == 60
    assert [button.label for button in page.get("download_button")] == ["CSV", "CSV"]


def test_sequences_and_parts_are_shown(page: AppTest):
    page.run()
    parts, sequences = page.table[0].value, page.dataframe[2].value
    assert parts["Users"].tolist() == ["60", "60", "60"]
    assert sequences["sequence"].str.contains(" ← ").all()
    assert "no note on its source" in " ".join(element.value for element in page.markdown)


def test_a_user_chosen_after_another_model_is_taken_along(
    page: AppTest, film_run: Path, film_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
):
    first = Recommender.load(film_run)
    other = Recommender(first.info | {"data_fingerprint": "other"}, film_dataset, first.scorer, reads_text=False)
    page.query_params["user"] = "user 3"
    page.run()
    monkeypatch.setattr(resources, "load_recommender", lambda run: other)
    page.run()
    assert "user" not in page.query_params  # who was chosen before is somebody else in these data
    page.query_params["user"] = "user 7"
    page.run()
    page.switch_page("app/app_pages/recommend.py").run()
    assert not page.exception
    assert page.query_params["user"] == "user 7"
    assert any("items of test user user 7" in caption.value for caption in page.caption)


NOTED = PreparedReport("films.zip", "tables", 60, 20, 0, 420, 0, 7.0, "leave-one-out", "Ask the owner.", "")


def test_terms_noted_in_the_models_own_data_are_shown(page: AppTest, film_run: Path, tmp_path: Path):
    shutil.copytree(film_run, tmp_path / "runs" / "noted")
    (tmp_path / "runs" / "noted" / "data" / "prepared.json").write_text(json.dumps(asdict(NOTED)))
    page.run()
    page.selectbox(key="run").set_value("noted").run()
    assert not page.exception
    assert r"Terms: Ask the owner\." in [element.value for element in page.markdown]


def test_terms_noted_beside_prepared_data_are_shown(page: AppTest, film_dataset: Dataset, tmp_path: Path):
    folder = tmp_path / "data" / "films"
    folder.mkdir(parents=True)
    replace(film_dataset, note=json.dumps(asdict(NOTED))).save(folder)
    page.run()
    page.selectbox(key="dataset").set_value("films").run()
    assert not page.exception
    assert r"Terms: Ask the owner\." in [element.value for element in page.markdown]


def test_ones_own_tables_become_a_data_set_that_can_be_looked_at(page: AppTest, tmp_path: Path):
    upload(page)
    choose(page, "interactions_timestamp", "When")  # no usual name; the others are guessed
    page.text_input(key="own_name").set_value("loans")
    page.run()
    assert page.dataframe[1].value["shelf"].tolist() == ["blue"] * 5
    press(page, "Check and write")
    assert not page.error
    assert "4 users, 5 items, 16 interactions" in page.success[0].value
    assert "--data data/loans --out runs/loans" in page.code[0].value
    written = Dataset.load(tmp_path / "data" / "loans")
    assert written.catalog.titles[0] == "Book number 0"
    view(page, "This data set")
    page.selectbox(key="dataset").set_value("loans").run()
    assert page.metric[2].value == "16"
    assert r"**loans\.csv and books\.csv**" in " ".join(element.value for element in page.markdown)


def test_a_stop_ends_the_writing_at_its_next_stage_and_leaves_nothing(
    page: AppTest, tmp_path: Path, click_meanwhile: Callable[[], None], monkeypatch: pytest.MonkeyPatch
):
    upload(page)
    choose(page, "interactions_timestamp", "When")
    page.text_input(key="own_name").set_value("loans").run()
    begun: list[int] = []

    def prepare_until_clicked(*arguments, on_stage: Callable[[int, int, str], None], **options) -> PreparedReport:
        def begin(number: int, of: int, what: str) -> None:
            begun.append(number)
            if number == 2:
                click_meanwhile()
            on_stage(number, of, what)

        return prepare_into(*arguments, on_stage=begin, **options)

    with monkeypatch.context() as slow:
        slow.setattr(intake_widgets.intake, "prepare_into", prepare_until_clicked)
        press(page, "Check and write")
    assert begun == [1, 2]
    assert not page.get("progress")
    assert not page.success
    assert not page.error
    assert list((tmp_path / "data").iterdir()) == []
    press(page, "Check and write")
    assert "4 users, 5 items, 16 interactions" in page.success[0].value


def test_a_column_without_a_usual_name_is_asked_for(page: AppTest):
    upload(page)
    assert page.error[0].value == literal("The interactions need a column for timestamp; none is chosen. Choose one.")
    assert "Check and write" not in [button.label for button in page.button]


def test_a_bad_row_is_named_and_nothing_is_written(page: AppTest, tmp_path: Path):
    upload(page, interactions=LOANS.replace("reader 1,2,1", "reader 1,9,1"))
    choose(page, "interactions_timestamp", "When")
    page.text_input(key="own_name").set_value("loans")
    page.run()
    press(page, "Check and write")
    assert page.error[0].value == literal(
        "interactions.csv, line 7: every item_id must be among the items; got '9'. "
        "Add it to items.csv, or leave the row out."
    )
    assert not (tmp_path / "data" / "loans").exists()


@pytest.mark.parametrize("name", ["", "../loans", "My Loans"])
def test_a_wrong_name_is_said(page: AppTest, tmp_path: Path, name: str):
    upload(page)
    choose(page, "interactions_timestamp", "When")
    page.text_input(key="own_name").set_value(name)
    page.run()
    press(page, "Check and write")
    assert "A data set's name has 1 to 64 small letters" in page.error[0].value
    assert not (tmp_path / "data").exists()


def test_paths_are_asked_for_only_where_the_app_serves_this_machine(page: AppTest, monkeypatch: pytest.MonkeyPatch):
    view(page, "Load your own")
    assert not [control for control in page.segmented_control if control.key == "own_from"]
    monkeypatch.setattr(st, "get_option", lambda name: "127.0.0.1")
    page.run()
    assert page.segmented_control(key="own_from").value == "Upload"


def test_a_folder_is_loaded_by_its_path(page: AppTest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(st, "get_option", lambda name: "127.0.0.1")
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "loans.csv").write_text(LOANS)
    (tmp_path / "library" / "books.csv").write_text(BOOKS)
    view(page, "Load your own")
    page.segmented_control(key="own_from").set_value("Path on this machine").run()
    page.text_input(key="own_path").set_value(str(tmp_path / "nowhere")).run()
    assert page.error[0].value.startswith("There is no")
    page.text_input(key="own_path").set_value(str(tmp_path / "library")).run()
    page.toggle(key="own_by_hand").set_value(True).run()
    page.selectbox(key="own_file_0").set_value("loans.csv")
    page.selectbox(key="own_file_1").set_value("books.csv").run()
    choose(page, "interactions_timestamp", "When")
    page.text_input(key="own_name").set_value("library").run()
    press(page, "Check and write")
    assert not page.error
    assert len(Dataset.load(tmp_path / "data" / "library").catalog) == 5
    assert not page.get("progress")
    assert "Stop" not in [button.label for button in page.button]


def test_a_public_set_shows_its_terms_and_waits_for_consent(page: AppTest, monkeypatch: pytest.MonkeyPatch):
    view(page, "Public sets")
    page.selectbox(key="public").set_value("ml-100k").run()
    text = " ".join(element.value for element in page.markdown)
    assert "4.9 MB" in text
    assert "imply no endorsement" in text
    fetch = next(button for button in page.button if button.label == "Fetch")
    assert fetch.disabled
    asked: list[str] = []

    def refuse(root: Path, name: str, source: str, **_: object) -> None:
        asked.append(source)
        raise DataError("https://example.org could not be read (offline). Check the connection.")

    monkeypatch.setattr(intake_widgets.intake, "prepare_into", refuse)
    page.checkbox(key="agreed_ml-100k").check().run()
    press(page, "Fetch")
    assert asked == ["ml-100k"]
    assert page.error[0].value.startswith(literal("https://example.org could not be read (offline)"))


def test_a_set_that_is_here_already_is_not_fetched_again(page: AppTest, tmp_path: Path):
    (tmp_path / "data" / "ml-100k").mkdir(parents=True)
    view(page, "Public sets")
    page.selectbox(key="public").set_value("ml-100k").run()
    assert "already here" in page.info[0].value
    assert "Fetch" not in [button.label for button in page.button]


def test_without_a_model_data_can_still_be_loaded(page: AppTest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py"])
    page.run()
    assert not page.exception
    assert "No data set yet" in [element.value for element in page.subheader]
    upload(page)
    assert np.isin(["Reader", "Book"], page.dataframe[0].value.columns).all()
