"""The Training page and one's own tables as a person uses them: bring data, train on it, look at the result."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import pause, serve
from playwright.sync_api import expect

from benchmarks.chromium import served, settle
from darec.background import Jobs
from darec.data.interactions import Dataset

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def served_data(browser, film_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the app started where there is prepared data and no run but the shipped ones."""
    folder = tmp_path_factory.mktemp("served_data")
    (folder / "data" / "films").mkdir(parents=True)
    film_dataset.save(folder / "data" / "films")
    yield from serve(folder)


def press_stop(page) -> None:
    """Press the page's own Stop: Streamlit's header has one as well, whenever a script runs for half a second."""
    page.get_by_test_id("stMain").get_by_role("button", name="Stop").click()


def test_a_training_is_started_watched_and_opened(served_data: str, open_page):
    page = open_page(served_data)  # so that a model has been picked before
    settle(page)
    page.get_by_role("link", name="Training").click()
    page.get_by_role("spinbutton", name="Epochs").fill("2")
    page.get_by_role("spinbutton", name="Epochs").press("Enter")
    pause(page)
    page.get_by_role("button", name="Start training").click()
    page.get_by_role("heading", name="classroom is learning").wait_for()
    page.get_by_text(re.compile("classroom.* is finished, after")).wait_for()
    page.locator(".js-plotly-plot .gtitle", has_text="Training").first.wait_for()
    pause(page)
    page.get_by_role("link", name="Open on Recommend").click()
    page.get_by_role("heading", name="What comes next?").wait_for()
    page.wait_for_url(re.compile(r"[?&]run=classroom(&|$)"))
    model = page.get_by_role("combobox", name="Model")

    page.get_by_role("link", name="Training").click()
    page.get_by_text(re.compile("classroom.* is finished, after")).wait_for()
    expect(model).to_have_value("classroom, retrained without dynamic adaption")
    pause(page)
    model.click()
    page.get_by_role("option", name="Demo: DARec", exact=True).click()
    page.get_by_text(re.compile("Demo: DARec.* is finished, after")).wait_for()  # the training shown follows
    pause(page)
    page.go_back()
    page.get_by_text(re.compile("classroom.* is finished, after")).wait_for()
    expect(model).to_have_value("classroom, retrained without dynamic adaption")


def test_a_stopped_training_is_deleted_by_a_second_click(served_data: str, open_page):
    page = open_page(f"{served_data}/training")
    settle(page)
    page.get_by_role("textbox", name="Name of the run").fill("dropped")
    page.get_by_role("textbox", name="Name of the run").press("Enter")
    pause(page)
    page.get_by_role("button", name="Start training").click()
    page.get_by_role("heading", name="dropped is learning").wait_for()
    press_stop(page)
    page.get_by_role("button", name="Resume").wait_for()
    pause(page)
    page.get_by_role("button", name="Delete", exact=False).click()
    page.get_by_text("What it has learned so far is lost.").wait_for()
    page.get_by_role("button", name="Delete for good").click()
    page.get_by_role("button", name="Resume").wait_for(state="detached")
    expect(page.get_by_role("combobox", name="Training", exact=True)).not_to_have_value(re.compile("dropped"))


def test_a_training_is_stopped_goes_on_and_is_quantized(served_data: str, open_page):
    page = open_page(served_data)
    settle(page)
    page.get_by_role("link", name="Training").click()
    name = page.get_by_role("textbox", name="Name of the run").input_value()
    pause(page)
    page.get_by_role("button", name="Start training").click()
    page.get_by_role("heading", name=f"{name} is learning").wait_for()
    press_stop(page)  # at once: so small a training is over in seconds
    page.get_by_role("button", name="Resume").wait_for()
    pause(page)
    page.get_by_role("button", name="Resume").click()  # of this training, not of the one seen before
    page.get_by_role("heading", name=f"{name} is learning").wait_for()
    page.get_by_role("link", name="Data").click()  # it outlives a change of page
    page.get_by_role("link", name="Training").click()
    page.get_by_text(re.compile(f"{name} is finished, after")).wait_for()
    pause(page)
    page.get_by_role("button", name="Quantize to 4 bits").click()
    page.get_by_role("heading", name=f"{name}-4bit is being made").wait_for()
    page.get_by_text(re.compile(f"{name} is finished, after")).wait_for()
    pause(page)
    page.get_by_text("Four bits").click()
    page.get_by_text("Kendall's tau").first.wait_for()


@pytest.mark.skipif(sys.platform == "win32", reason="waits for a lock as POSIX has it")
def test_a_training_ends_with_the_app(browser, open_page, tmp_path: Path):
    with served(tmp_path, OMP_NUM_THREADS="1") as address:  # its only data are the demo's: a minute's training
        page = open_page(f"{address}/training")
        pause(page)
        page.get_by_role("button", name="Start training").click()
        page.get_by_role("progressbar").wait_for()
        page.get_by_text(re.compile(r"^(CF model first|Short way|Epoch \d+)")).first.wait_for()
        page.close()
    import fcntl

    with open(tmp_path / "runs" / ".jobs" / "lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # which the training holds until it has ended
    assert [job.name for job in Jobs(tmp_path / "runs").unfinished()] == ["classroom"]


def test_own_tables_are_uploaded_checked_and_written(served_data: str, open_page, tmp_path: Path):
    watched = [f"u{user},i{(user + step) % 6},{100 * step}" for user in range(8) for step in range(5)]
    (tmp_path / "watched.csv").write_text("\n".join(["who,what,when", *watched]))
    (tmp_path / "films.csv").write_text("\n".join(["item_id,title", *(f"i{i},Film number {i}" for i in range(6))]))
    page = open_page(f"{served_data}/data?data=Load your own")
    settle(page)
    for place, name in enumerate(("watched.csv", "films.csv")):
        page.locator("input[type=file]").nth(place).set_input_files(tmp_path / name)
        page.get_by_text(name).first.wait_for()
    page.get_by_role("combobox", name="user_id").wait_for()
    settle(page)
    for ours, theirs in (("user_id", "who"), ("item_id", "what"), ("timestamp", "when")):
        page.get_by_role("combobox", name=ours).first.click()
        page.get_by_role("option", name=theirs, exact=True).click()
        settle(page)
    page.get_by_role("textbox", name="Name").fill("mine")
    page.get_by_role("textbox", name="Name").press("Enter")
    page.get_by_role("button", name="Check and write").click()
    page.get_by_text("8 users, 6 items, 40 interactions").wait_for()
    page.get_by_role("link", name="Train a model on it here").click()
    page.get_by_role("heading", name="Watch it learn").wait_for()
