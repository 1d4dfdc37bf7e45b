"""A served app and a Chromium that watches over every page: no error in the console, no request beyond loopback."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from benchmarks.chromium import CHROMIUM, rest, settle
from benchmarks.chromium import served as served_in
from darec.config import parse_settings
from darec.data.interactions import Dataset
from darec.training.loop import train

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
TIMEOUT = 120_000  # milliseconds: the first page imports torch, which takes long on a busy machine
ONLY_THIS_MACHINE = Path(__file__).parent / "only_this_machine"
_requests: WeakKeyDictionary = WeakKeyDictionary()  # page -> those of its requests that are not answered yet


@pytest.fixture(scope="session")
def browser() -> Iterator:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    sync_api.expect.set_options(timeout=TIMEOUT)
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def served(browser, film_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the app, started as a user would, with the invented films' run."""
    yield from serve(tmp_path_factory.mktemp("served"), "--", "--run", str(film_run))


@pytest.fixture(scope="session")
def served_demo(browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the app started with nothing configured, where there is no run but the shipped ones."""
    yield from serve(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def served_model(browser, film_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the app with a small DARec run on the invented films: gated adapters, trained for seconds."""
    folder = tmp_path_factory.mktemp("served_model")
    (folder / "data").mkdir()
    film_dataset.save(folder / "data")
    settings = {
        "sequence": {"max_items": 12, "max_text_tokens": 10, "max_encoding_tokens": 24},
        "backbone": {"tiny": True},
        "adapters": {"layers": [["lora_attention:8", "parallel:16"], ["serial:8"]], "weights": "gated"},
        "collaborative": {"hidden_size": 16, "max_items": 12, "epochs": 2},
        "training": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "precision": "fp32"},
    }
    run = train(folder / "data", folder / "gated", parse_settings(settings), backbone=None)
    yield from serve(folder, "--", "--run", str(run))


@pytest.fixture(scope="session")
def windows(browser) -> Iterator[Callable]:
    """Windows of a width and a colour scheme. What one has loaded is not fetched and compiled again by the next."""
    contexts: dict[tuple[int, str], Any] = {}

    def open_window(width: int, color_scheme: str):
        if (width, color_scheme) not in contexts:
            size = {"width": width, "height": 800}
            contexts[width, color_scheme] = browser.new_context(viewport=size, color_scheme=color_scheme)
        return contexts[width, color_scheme].new_page()

    yield open_window
    for context in contexts.values():
        context.close()


@pytest.fixture
def open_page(windows) -> Iterator[Callable]:
    """Opens an address in a session of its own; afterwards every page must have stayed quiet and on this machine."""
    pages, faults = [], []

    def open_address(address: str, width: int = 1280, color_scheme: str = "light"):
        page = windows(width, color_scheme)
        pages.append(page)
        page.set_default_timeout(TIMEOUT)
        page.on(
            "console",
            lambda message: faults.append(f"{message.text} {message.location}") if is_fault(message) else None,
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: None if is_local(request.url) else faults.append(request.url))
        _requests[page] = waiting = set()
        page.on("request", lambda request: waiting.add(request))
        page.on("requestfinished", lambda request: waiting.discard(request))
        page.on("requestfailed", lambda request: waiting.discard(request))
        page.goto(address)
        return page

    yield open_address
    for page in pages:
        page.close()
    assert faults == []


def pause(page) -> None:
    """Wait, as a person who reads would: until the page has ended its script, is drawn, and has all it asked for.

    A button that saves a file asks whether the file is there, once it is drawn; a click before that can take it away.
    """
    settle(page)
    quiet = False
    while not quiet:
        waiting = bool(_requests[page])
        rest(page)
        quiet = not waiting and not _requests[page]


def wait_for_link(page, name: str, value: str | None) -> None:
    """Wait until a page's address has this value of a parameter; None waits until it has none."""
    page.wait_for_function(
        "([name, value]) => new URLSearchParams(location.search).get(name) === value", arg=[name, value]
    )


def is_fault(message) -> bool:
    """Whether a page wrote an error into the console, other than streamlit's own first look below a page's address."""
    probes = ("/_stcore/health", "/_stcore/host-config")
    return message.type == "error" and not message.location["url"].endswith(probes)


def is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:"))


def serve(folder: Path, *arguments: str) -> Iterator[str]:
    """The app as for a user whom nothing keeps from the hub; it, and what it starts, must ask no other machine."""
    log = folder / "reached-out.log"
    environment = {"HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ONLY_THIS_MACHINE), "REACHED_OUT": str(log)}
    with served_in(folder, *arguments, OMP_NUM_THREADS="1", **environment) as address:
        yield address
    assert not log.exists(), log.read_text(encoding="utf-8")
