"""How long a person waits for the app with the shipped model, measured in Chromium.

    python -m benchmarks.page_speed

Needs /usr/bin/chromium and playwright, and Linux for the memory. Three starts from cold, after each
several of each act; suggestions over a catalogue of 20,000 invented titles; memory once more after every model that
ships was compared and every page opened, and that of a training on the demo's data beside it. The result, with every
single time, goes to benchmarks/results/page-speed.json; the exit code is 1 where a median or the memory is above its
limit.
"""

import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pandas as pd
from playwright.sync_api import Browser, Page, sync_playwright

from app.resources import list_runs
from benchmarks.chromium import CHROMIUM, rest, served, settle
from darec.baselines import write_baseline_run
from darec.data.interactions import validated
from darec.runs import provenance, write_json

RESULT = Path(__file__).parent / "results" / "page-speed.json"
LIMITS = {  # seconds
    "cold start to the first list": 10.0,
    "changed history": 1.0,
    "changed history of 79 items": 1.0,
    "what if, of 79 items": 2.0,  # a figure, as attention is
    "suggestions, first of a session": 1.0,
    "suggestions": 1.0,
    "attention, first visit": 2.0,
    "attention": 2.0,
    "one head over a whole window": 2.0,
    "all heads over a whole window": 2.0,
}
MEMORY = 1.5  # GiB, the most that the server, and what trains beside it, may come to hold
STARTS, REPEATS, TITLES = 3, 5, 20_000
LONG_HISTORY = "viewer-0021"  # of 79 films: the window is full
LOOK = 4_000  # milliseconds of somebody who reads before the first click; figures' scripts are loaded meanwhile
PATIENCE = 120_000  # milliseconds until an act counts as failed
LIST = (
    """() => [...document.querySelectorAll('[data-testid="stDataFrame"] tbody tr')].map(row => row.innerText).join()"""
)
MATCHING = """letters => [...document.querySelectorAll('button')].filter(
    button => button.innerText.toLowerCase().includes(letters)).length"""


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in LIMITS}
    memory = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        for _ in range(STARTS):
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as address:
                page = open_page(browser, address)
                page.wait_for_function(f"({LIST})() !== ''", polling=20)
                times["cold start to the first list"].append(time.perf_counter() - start)
                measure_acts(page, address, times)
                memory.append(peak_memory(port_of(address)))
        with tempfile.TemporaryDirectory() as folder:
            run = make_large_run(Path(folder) / "large")
            (Path(folder) / "app").mkdir()
            with served(Path(folder) / "app", "--", "--run", str(run)) as address:
                for _ in range(STARTS):
                    measure_suggestions(open_page(browser, address), times)
        memory_of_all, memory_of_training = measure_memory(browser)
        browser.close()
    medians = {name: statistics.median(values) for name, values in times.items()}
    result: dict[str, Any] = {
        "seconds": times,
        "median_seconds": medians,
        "longest_seconds": {name: max(values) for name, values in times.items()},
        "limit_seconds": LIMITS,
        "peak_memory_gib": memory,
        "peak_memory_gib_all_models_and_pages": memory_of_all,
        "peak_memory_gib_of_a_training_beside": memory_of_training,
        "limit_gib": MEMORY,
        "met": {name: medians[name] <= limit for name, limit in LIMITS.items()}
        | {"memory": all(0 < peak <= MEMORY for peak in (*memory, memory_of_all, memory_of_training))},
        "provenance": provenance("cpu"),
    }
    write_json(RESULT, result)
    for name, median in medians.items():
        print(f"{name}: {median:.2f} s, at most {max(times[name]):.2f} s (limit {LIMITS[name]:.0f} s)")
    print(f"memory of the app: {max(memory):.2f} GiB, with all models {memory_of_all:.2f} GiB (limit {MEMORY} GiB)")
    print(f"memory of a training beside it: {memory_of_training:.2f} GiB")
    sys.exit(0 if all(result["met"].values()) else 1)


def measure_acts(page: Page, address: str, times: dict[str, list[float]]) -> None:
    """A history changed by a click until its new list is drawn, three letters until titles are offered, a figure."""
    settle(page)
    measure_changes(page, [0] * REPEATS, times["changed history"])
    page.goto(f"{address}/?user={LONG_HISTORY}")
    settle(page)
    measure_changes(page, range(78, 78 - REPEATS, -1), times["changed history of 79 items"])
    for _ in range(REPEATS):
        page.goto(f"{address}/?user={LONG_HISTORY}&panel=What+if")
        settle(page)
        page.wait_for_timeout(LOOK)
        start = time.perf_counter()
        page.get_by_role("button", name="Drop", exact=True).click()
        page.locator(".gtitle", has_text="Ranks before and after").wait_for(timeout=PATIENCE)
        times["what if, of 79 items"].append(time.perf_counter() - start)
    for visit in range(REPEATS):
        page.goto(address)
        settle(page)
        start = time.perf_counter()
        page.get_by_role("link", name="Attention").first.click()
        page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=PATIENCE)
        times["attention" if visit else "attention, first visit"].append(time.perf_counter() - start)
    for _ in range(REPEATS):
        page.goto(f"{address}/attention?user={LONG_HISTORY}")
        for view, title in (("One head", "Layer"), ("All heads", "All heads,")):
            settle(page)
            start = time.perf_counter()
            page.get_by_text(view, exact=True).first.click()
            page.locator(".gtitle", has_text=title).first.wait_for(timeout=PATIENCE)
            times[f"{view.lower()} over a whole window"].append(time.perf_counter() - start)


def measure_changes(page: Page, places: Iterable[int], times: list[float]) -> None:
    """Items taken out of a history, the oldest of which has place 0, each until the new list is drawn."""
    for place in places:
        before = page.evaluate(LIST)
        start = time.perf_counter()
        page.locator(f".st-key-remove-{place} button:visible").click()
        page.wait_for_function(f"before => ({LIST})() !== before && ({LIST})() !== ''", arg=before, polling=20)
        times.append(time.perf_counter() - start)
        settle(page)


def measure_suggestions(page: Page, times: dict[str, list[float]]) -> None:
    """From the first of three letters until a title that holds them is offered."""
    settle(page)
    search = page.get_by_role("searchbox", name="Add an item")
    for place, letters in enumerate(("kor", "mal", "sen", "pel", "dun")):
        search.fill("")
        before = page.evaluate(MATCHING, letters)  # titles of the history may hold them too
        start = time.perf_counter()
        search.press_sequentially(letters)
        page.wait_for_function(
            f"([letters, before]) => ({MATCHING})(letters) > before", arg=[letters, before], polling=20
        )
        times["suggestions" if place else "suggestions, first of a session"].append(time.perf_counter() - start)


def measure_memory(browser: Browser) -> tuple[float, float]:
    """Peak memory in GiB of the app, all models compared and all pages opened, and of a training beside it."""
    names = [name for name in list_runs() if name.startswith("Demo: ")][1:]  # the first one is the picked one
    others = [("beside", name if "retrained" in name else f"{name}, baseline") for name in names]
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as address:
        page = open_page(browser, f"{address}/?{urlencode([('panel', 'Compare'), *others])}")
        for name in ("layers", "attention", "errors", "data", "method", "training"):
            settle(page)
            rest(page)
            if page.get_by_test_id("stAlertContentWarning").count():
                raise RuntimeError(f"The app warns at {page.url}.")
            page.goto(f"{address}/{name}")
        settle(page)
        page.get_by_role("button", name="Start training").click()
        page.get_by_role("progressbar").wait_for()
        training, lock = 0.0, Path(folder).resolve() / "runs" / ".jobs" / "lock"
        while now := peak_memory(str(lock)):  # until it has ended
            training = max(training, now)
            page.wait_for_timeout(500)
        return peak_memory(port_of(address)), training


def make_large_run(folder: Path) -> Path:
    """A run whose catalogue has 20,000 invented titles, most of which nobody took."""
    random = np.random.default_rng(0)
    syllables = [
        first + vowel + last for first in "bdfgklmnprst" for vowel in "aeiou" for last in ("l", "n", "r", "st")
    ]
    words = random.choice(syllables, (TITLES, 4))
    titles = [f"{a}{b} {c}{d} {number}".title() for number, (a, b, c, d) in enumerate(words.tolist())]
    items = pd.DataFrame({"item_id": [f"i{number}" for number in range(TITLES)], "title": titles})
    rows = [(f"u{user}", f"i{random.integers(TITLES)}", place) for user in range(50) for place in range(8)]
    interactions = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).drop_duplicates()
    (folder / "data").mkdir(parents=True)
    validated(interactions, items, "invented titles").save(folder / "data")
    write_baseline_run("popularity", folder / "data", folder / "popularity")
    return folder / "popularity"


def port_of(address: str) -> str:
    return address.rpartition(":")[2]


def peak_memory(word: str) -> float:
    """The most memory in GiB that the process with a word in its command has held so far; 0 where there is none."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                found = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
                return int(found[1]) / 2**20 if found else 0.0
        except OSError:  # it has ended
            continue
    return 0.0


def open_page(browser: Browser, address: str) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    return page


if __name__ == "__main__":
    main()
