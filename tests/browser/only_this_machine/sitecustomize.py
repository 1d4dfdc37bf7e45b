"""Loaded by every Python that finds this folder on its path: another machine is neither looked up nor reached.

Each attempt is a line in the file that REACHED_OUT names.
"""

import os
import socket
from typing import Any

_OWN = ("127.", "::1", "localhost")
_look_up, _connect = socket.getaddrinfo, socket.socket.connect


def _refuse(host: object) -> None:
    with open(os.environ["REACHED_OUT"], "a", encoding="utf-8") as log:
        log.write(f"{host}\n")
    raise OSError(f"Only this machine may be reached, not {host}.")


def look_up(host: Any, *rest: Any, **options: Any) -> Any:
    if host and not str(host).startswith((*_OWN, "0.0.0.0")):
        _refuse(host)
    return _look_up(host, *rest, **options)


def connect(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(_OWN):
        _refuse(address[0])
    _connect(self, address)


socket.getaddrinfo = look_up
socket.socket.connect = connect  # type: ignore[method-assign]
