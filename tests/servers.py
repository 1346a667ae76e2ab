"""Servers on this machine for tests of clients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["serving"]


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[Callable[[Any], Any]]:
    """A function that starts a server with a script, which the handler reads; the servers stop with the block.

    A server has ``url``, ``script``, an empty list ``seen``, and ``guard``, ``running`` and ``most`` for a handler that
    counts requests at a time.
    """
    servers = []

    def start(script: Any) -> Any:
        server: Any = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.script, server.seen, server.guard = script, [], threading.Lock()
        server.running = server.most = 0
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
