"""The app as a user starts it, for a Chromium that acts as a user: for the benchmarks, the pictures and the tests."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # tests skip where playwright is not installed
    from playwright.sync_api import Page

CHROMIUM = Path("/usr/bin/chromium")
START_SECONDS = 60
_ENTRY = Path(__file__).resolve().parents[1] / "streamlit_app.py"
_UNCHANGED = """() => {
    const now = document.body.innerHTML.length + document.fonts.status;
    window.unchanged = now === window.before && document.fonts.status === "loaded" ? window.unchanged + 1 : 0;
    window.before = now;
    return window.unchanged >= 5;
}"""
_FITS = """() => [document.documentElement, document.querySelector('[data-testid="stMain"]')].every(
    place => place.scrollWidth <= place.clientWidth)"""
_FINISHED = """() => document.querySelector('[data-test-script-state="notRunning"]') !== null"""


@contextmanager
def served(folder: Path, *arguments: str, **environment: str) -> Iterator[str]:
    """Address of the app, started in `folder`, an empty one or one with runs; its notes, cache and log are put there.

    Args:
        folder: where the app starts.
        arguments: what follows `streamlit run streamlit_app.py`.
        environment: variables of the app beside this process's own.

    Raises:
        RuntimeError: the app ends, or is not healthy within a minute; with its log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The app's folder holds its settings; the copy of the link makes streamlit start in a folder without runs.
    (folder / ".streamlit").symlink_to(_ENTRY.parent / ".streamlit")
    options = ["--server.port", str(port), "--server.fileWatcherType", "none"]
    command = [sys.executable, "-m", "streamlit", "run", str(_ENTRY), *options, *arguments]
    own = {"DAREC_NOTES": str(folder / "notes.sqlite"), "DAREC_CACHE": str(folder / "cache")}
    log = folder / "server.log"
    with open(log, "wb") as output:
        server = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=os.environ | own | environment
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_healthy(f"{address}/_stcore/health", server, log)
        yield address
    finally:
        server.terminate()
        server.wait()


def settle(page: "Page") -> None:
    """Wait until a page's script has come to its end."""
    page.get_by_role("heading", level=1).first.wait_for()
    page.wait_for_function(_FINISHED, polling=20)


def rest(page: "Page") -> None:
    """Wait until a settled page has drawn what it loads late, its fonts too: nothing changes for half a second."""
    page.wait_for_function(_UNCHANGED, polling=100)


def fits(page: "Page") -> bool:
    """Whether the page is no wider than its place in the window: what is wider scrolls there, not in the document."""
    return bool(page.evaluate(_FITS))


def _wait_until_healthy(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address):
                return
        except urllib.error.URLError:
            time.sleep(0.02)
    raise RuntimeError(f"The app did not start: {log.read_text()}")
