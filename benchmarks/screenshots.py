"""Pictures of the real pages for the README and docs, written to assets/screenshots/*.png.

    python -m benchmarks.screenshots [--search RUN --name NAME]

Needs /usr/bin/chromium and playwright. The app runs with nothing configured, on the shipped model; Training, the last
of them, shows a small run that is trained for it, in minutes. With --search there is one picture, of the search that
made a run, called search-NAME.png.
"""

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.chromium import CHROMIUM, served, settle
from benchmarks.page_speed import PATIENCE
from darec.config import load_settings
from darec.training.loop import train

SHIPPED_DATA = Path(__file__).resolve().parents[1] / "assets" / "models" / "demo" / "data"
FOLDER = Path(__file__).resolve().parents[1] / "assets" / "screenshots"
HOBBITS = "the-lord-of-the-rings-the-fellowship-of-the-ring-2001~the-lord-of-the-rings-the-two-towers-2002"
PICTURES = {  # file -> page and what its link shows
    "recommend": f"?history={HOBBITS}",
    "truth": "?user=viewer-0010&panel=Truth",
    "layers": f"layers?history={HOBBITS}&layers_view=Weights",
    "search": "layers?layers_view=Search",
    "attention": f"attention?history={HOBBITS}&hidden=17",
    "errors": "errors?user=viewer-0010",
    "data": "data",
    "method": f"method?history={HOBBITS}&part=3+Knowledge+injection",
    "training": "training?training_shown=classroom",
}
HEIGHTS = {"training": 1160}  # file -> pixels, where more than a screen is to be seen
CLICKS = {"layers": "Average"}  # file -> a button to press


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", type=Path, metavar="RUN", help="a run that comes from a search")
    parser.add_argument("--name", help="of the data it searched on")
    arguments = parser.parse_args()
    if (arguments.search is None) != (arguments.name is None):
        parser.error("--search and --name go together")
    pictures, started_on = PICTURES, []
    if arguments.search:  # a run that is named opens first
        pictures = {f"search-{arguments.name}": PICTURES["search"]}
        started_on = ["--", "--run", str(arguments.search.resolve())]
    FOLDER.mkdir(exist_ok=True)
    with (
        sync_playwright() as playwright,
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder), *started_on) as address,
    ):
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        for name, link in pictures.items():
            if name == "training":  # where the app looks for trainings
                data, run = SHIPPED_DATA, Path(folder) / "runs" / "classroom"
                train(data, run, load_settings("classroom"), backbone=None, device="cpu")
            page.set_viewport_size({"width": 1280, "height": HEIGHTS.get(name, 860)})
            page.goto(f"{address}/{link}")
            settle(page)
            if name in CLICKS:
                page.get_by_role("button", name=CLICKS[name], exact=True).click()
                page.get_by_text("percentage points against").wait_for()
                page.mouse.move(0, 0)  # off the button
            page.wait_for_timeout(3000)  # charts grow into place
            page.screenshot(path=FOLDER / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
