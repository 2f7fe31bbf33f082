"""A picture on this computer that a server may or may not fetch, and who asked for what."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from components.smoke_test.checks.vision import picture

ELSEWHERE = "/moved.png"
"""Redirects to the server in the test's hands that a request does not name."""


LATER = "/later.png"
"""A picture at first, and from then on the same redirect."""


class Pictures:
    """A server on loopback: a picture at each address, but for those that are redirects."""

    def __init__(self, elsewhere: str = "") -> None:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                if self.path == ELSEWHERE or (self.path == LATER and asked.count(LATER) > 1):
                    self.send_response(302)
                    self.send_header("Location", elsewhere)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                content = picture()
                self.send_response(200)
                self.send_header("Content-Type", "image/png")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.asked = asked
        """Paths, in order."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def at(self, path: str, name: str = "127.0.0.1") -> str:
        """The address of `path`, with this computer under `name`."""
        return f"http://{name}:{self._server.server_port}{path}"
