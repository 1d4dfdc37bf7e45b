"""How long a person waits for the app with the shipped model, measured in Chromium.

    python -m benchmarks.page_speed

Needs /usr/bin/chromium and playwright. Three starts from cold; then, in one session, five of each act. The result, with
every single time, goes to benchmarks/results/page-speed.json; the exit code is 1 where a median is above its limit.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.chromium import CHROMIUM, served, settle
from darec.runs import provenance, write_json

RESULT = Path(__file__).parent / "results" / "page-speed.json"
LIMITS = {"cold start to the first list": 10.0, "changed history": 1.0, "suggestions": 1.0, "attention": 2.0}  # seconds
STARTS, REPEATS = 3, 5
PATIENCE = 120_000  # milliseconds until an act counts as failed
LIST = (
    """() => [...document.querySelectorAll('[data-testid="stDataFrame"] tbody tr')].map(row => row.innerText).join()"""
)
OFFERED = """letters => [...document.querySelectorAll('button')].some(
    button => button.innerText.toLowerCase().includes(letters))"""


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in LIMITS}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        for _ in range(STARTS):
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as address:
                page = open_page(browser, address)
                page.wait_for_function(f"({LIST})() !== ''", polling=20)
                times["cold start to the first list"].append(time.perf_counter() - start)
                measure_acts(page, address, times)
        browser.close()
    medians = {name: statistics.median(values) for name, values in times.items()}
    result: dict[str, Any] = {
        "seconds": times,
        "median_seconds": medians,
        "limit_seconds": LIMITS,
        "met": {name: medians[name] <= limit for name, limit in LIMITS.items()},
        "provenance": provenance("cpu"),
    }
    write_json(RESULT, result)
    for name, median in medians.items():
        print(f"{name}: {median:.2f} s (limit {LIMITS[name]:.0f} s)")
    sys.exit(0 if all(result["met"].values()) else 1)


def measure_acts(page: Page, address: str, times: dict[str, list[float]]) -> None:
    """A history changed by a click until its new list is drawn, three letters until titles are offered, a figure."""
    settle(page)
    for _ in range(REPEATS):
        before = page.evaluate(LIST)
        start = time.perf_counter()
        page.locator(".st-key-remove-0 button:visible").click()
        page.wait_for_function(f"before => ({LIST})() !== before && ({LIST})() !== ''", arg=before, polling=20)
        times["changed history"].append(time.perf_counter() - start)
        settle(page)
    search = page.get_by_role("searchbox", name="Add an item")
    for letters in ("sta", "god", "the", "lon", "mat"):
        search.fill("")
        search.press_sequentially(letters[:2])
        start = time.perf_counter()
        search.press_sequentially(letters[2:])
        page.wait_for_function(
            OFFERED,
            arg=letters,
            polling=20,
        )
        times["suggestions"].append(time.perf_counter() - start)
    for _ in range(REPEATS):
        page.goto(address)
        settle(page)
        start = time.perf_counter()
        page.get_by_role("link", name="Attention").first.click()
        page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=PATIENCE)
        times["attention"].append(time.perf_counter() - start)


def open_page(browser: Browser, address: str) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    return page


if __name__ == "__main__":
    main()
