"""Loaded by every Python that finds this folder on its path: no other machine is looked up by name, or connected to.

Each attempt is noted, with where it came from, in the file that REACHED_OUT names.
"""

import os
import socket
import traceback
from typing import Any

_OWN = ("localhost", "::1", "0.0.0.0", "")
_look_up, _connect = socket.getaddrinfo, socket.socket.connect


def _refuse_others(host: Any) -> None:
    host = host.decode() if isinstance(host, bytes) else host
    if host is None or host in _OWN or host.startswith("127."):
        return
    with open(os.environ["REACHED_OUT"], "a", encoding="utf-8") as log:
        log.write(f"{host}\n{''.join(traceback.format_stack())}\n")
    raise OSError(f"Only this machine may be reached, not {host}.")


def look_up(host: Any, *rest: Any, **options: Any) -> Any:
    _refuse_others(host)
    return _look_up(host, *rest, **options)


def connect(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        _refuse_others(address[0])
    _connect(self, address)


socket.getaddrinfo = look_up
socket.socket.connect = connect
