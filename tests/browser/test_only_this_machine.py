"""That the guard under which the app is served in these tests lets nothing out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ONLY_THIS_MACHINE

CALLS = {
    "example.org": "import urllib.request; urllib.request.urlopen('http://example.org')",
    "192.0.2.1": "import socket; socket.create_connection(('192.0.2.1', 80), 1)",
}


@pytest.mark.parametrize("host", CALLS)
def test_another_machine_is_refused_and_noted(host: str, tmp_path: Path):
    log = tmp_path / "reached-out.log"
    environment = os.environ | {"PYTHONPATH": str(ONLY_THIS_MACHINE), "REACHED_OUT": str(log)}
    ended = subprocess.run([sys.executable, "-c", CALLS[host]], env=environment, capture_output=True, text=True)
    assert f"Only this machine may be reached, not {host}." in ended.stderr
    assert log.read_text(encoding="utf-8").startswith(f"{host}\n")


def test_this_machine_is_reached(tmp_path: Path):
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname()).close()"
    )
    environment = os.environ | {"PYTHONPATH": str(ONLY_THIS_MACHINE), "REACHED_OUT": str(tmp_path / "log")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
    assert not (tmp_path / "log").exists()
