"""Vast's API over HTTP for the adapters' tests: contracts run at once, every call is noted.

The contract tests of `VastApi` hold its answers to those of the emulator.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from components.core.clock import Clock
from components.machine import first_contact
from components.vast.api.client import VastApi
from components.vast.api.sdk import VastClient
from tests.helpers.offers import instance, row

KEY = "fake-vast-key-5f2a"


class FakeVast:
    """A context manager that serves on 127.0.0.1."""

    def __init__(self) -> None:
        self.contracts: dict[int, dict[str, Any]] = {}
        self.offers: list[dict[str, Any]] = [row()]
        self.credit = 100.0
        self.account_id = 4711
        self.prices_asked: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.broken: set[str] = set()
        """Methods and paths, as in `calls`, that answer that the key is unknown."""
        self.failing: set[str] = set()
        """Methods and paths that answer 400, which is not tried again."""
        self.unlisted_for = 0
        """Lists on which the contracts do not stand yet."""
        self.withdrawn = False
        """Whether the list is answered with 410."""
        self.taken_on_demand = False
        """Whether a start is queued, since others have the GPUs."""
        self.jobs: dict[int, dict[str, Any]] = {}
        """What is scheduled, by number."""
        self.starts: list[float] = []
        """For when something was scheduled, in order."""
        self.loses_jobs = False
        """Whether a job is answered with success and not kept."""
        self.contract: dict[str, Any] = {}
        """What every new contract has beside its id, label and image."""
        self.host_keys: list[str] = []
        """Public keys that start scripts write to their containers' logs."""
        self._scripts: dict[int, str] = {}
        self._rented: dict[int, int] = {}
        """Contract by offer, of those that were rented here."""
        self._latest = 9000
        fake = self

        class Handler(BaseHTTPRequestHandler):
            wbufsize = -1
            """Head and body leave together: sending is most of the work of an answer."""

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base's name)
                del format, args

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return lambda: fake._serve(self, name.removeprefix("do_"))
                raise AttributeError(name)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def api(self, clock: Clock, folder: Path) -> VastApi:
        """Give the project's client of this server."""
        client = VastClient(api_key=KEY, server_url=self.url, retry=1, timeout=10)
        return VastApi(client, self.url, clock, folder, print, key=KEY)

    def has(self, id_: int = 9001, **changes: Any) -> None:
        """Let a contract be there."""
        self.contracts[id_] = instance(id=id_, **changes)

    def writes(self) -> list[str]:
        """Calls that change something."""
        reads = ("GET", "POST /bundles/", "PUT /instances/request_logs/")
        return [call for call in self.calls if not call.startswith(reads)]

    def _serve(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length) or b"{}") if length else {}
        path = urlsplit(handler.path).path.removeprefix("/api/v0")
        call = f"{method} {path}"
        self.calls.append(call)
        if path.startswith("/instance_logs/"):
            self._send(handler, 200, self._log(int(path.rpartition("/")[2])).encode())
            return
        if handler.headers.get("Authorization") != f"Bearer {KEY}" or call in self.broken:
            status, answer = 404, {"success": False, "error": "auth_error", "msg": "Invalid key"}
        elif call in self.failing:
            status, answer = 400, {"success": False, "error": "ill", "msg": "not now"}
        else:
            status, answer = self._answer(method, path, body)
        self._send(handler, status, json.dumps(answer).encode())

    def _send(self, handler: BaseHTTPRequestHandler, status: int, content: bytes) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        plain: dict[str, dict[str, Any]] = {
            "/bundles/": {"offers": self.offers},
            "/users/current/": {"id": self.account_id, "credit": self.credit},
        }
        if path in plain:
            return 200, plain[path]
        if path == "/api/v1/instances/":
            return self._list()
        if path.endswith(("-price-increases/", "-price-increase/")):
            return self._prices(method)
        if path.startswith("/asks/"):
            return self._rent(int(path.strip("/").rpartition("/")[2]), body)
        if path.startswith("/instances/request_logs/"):
            link = f"{self.url}/instance_logs/{path.strip('/').rpartition('/')[2]}"
            return 200, {"success": True, "result_url": link}
        return self._on_number(method, path, body)

    def _on_number(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        number = path.removesuffix("/ssh/").strip("/").rpartition("/")[2]
        if path.startswith("/commands/schedule_job/"):
            return self._on_jobs(method, number, body)
        return self._on_contract(method, int(number), body)

    def _on_jobs(self, method: str, number: str, body: dict[str, Any]) -> tuple[int, Any]:
        if method == "GET":
            return 200, [{"id": one, **job} for one, job in self.jobs.items()]
        same = self._same_job(body) if method == "POST" else None
        if same is not None:
            return 422, {"success": False, "error": "job_exists", "scheduled_job_id": same}
        if method == "PUT" and int(number) not in self.jobs:
            return 404, {"success": False, "error": "not_found"}
        job = max(self.jobs, default=0) + 1 if method == "POST" else int(number)
        if method == "DELETE":
            if self.jobs.pop(job, None) is None:
                return 404, {"success": False, "error": "not_found"}
        else:
            self.starts.append(body["start_time"])
            if not self.loses_jobs:
                self.jobs[job] = body
        return 200, {"success": True, "scheduled_job_id": job}

    def _same_job(self, body: dict[str, Any]) -> int | None:
        call = ("api_endpoint", "request_method")
        for number, job in self.jobs.items():
            if all(job[name] == body[name] for name in call):
                return number
        return None

    def _log(self, id_: int) -> str:
        """What the start script of a contract that was rented here has written."""
        key = re.search(r'"([0-9a-f]{64})\$print"', self._scripts.get(id_, ""))
        if key is None:
            return ""
        prints = map(first_contact.fingerprint, self.host_keys)
        lines = (f"{one} {hashlib.sha256((key[1] + one).encode()).hexdigest()}" for one in prints)
        return "".join(f"{first_contact.MARK} {line}\n" for line in lines)

    def _prices(self, method: str) -> tuple[int, dict[str, Any]]:
        if method == "GET":
            return 200, {"success": True, "pending_price_increases": self.prices_asked}
        self.prices_asked.clear()
        return 200, {"success": True}

    def _list(self) -> tuple[int, dict[str, Any]]:
        if self.withdrawn:
            return 410, {"success": False, "error": "deprecated_endpoint"}
        listed = [] if self.unlisted_for > 0 else list(self.contracts.values())
        self.unlisted_for -= 1
        return 200, {"success": True, "instances": listed}

    def _rent(self, offer: int, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        known = {one["id"]: one for one in self.offers}
        if offer not in known or self._rented.get(offer) in self.contracts:
            return 404, {"success": False, "error": "no_such_ask"}
        self._latest = id_ = max(self._latest, *self.contracts, 0) + 1
        self._rented[offer] = id_
        facts = {"label": body["label"], "image_uuid": body["image"], "disk_space": body["disk"]}
        place = {name: known[offer][name] for name in ("machine_id", "host_id")}
        self.has(id_, **facts | place | self.contract)
        self._scripts[id_] = str(body["onstart"])
        return 200, {"success": True, "new_contract": id_}

    def _on_contract(
        self, method: str, id_: int, body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        if id_ not in self.contracts:
            return 404, {"success": False, "error": "no_such_instance"}
        if method == "GET":
            return 200, {"instances": self.contracts[id_]}
        if method == "DELETE":
            del self.contracts[id_]
        elif body.get("state") == "running":
            return 200, self._start(id_)
        else:
            self.contracts[id_].update(body)
        return 200, {"success": True}

    def _start(self, id_: int) -> dict[str, Any]:
        if self.taken_on_demand:
            self.contracts[id_].update(intended_status="running", next_state="running")
            return {"success": False, "error": "resources_unavailable"}
        states = ("actual_status", "intended_status", "cur_state", "next_state")
        self.contracts[id_].update(dict.fromkeys(states, "running"), ports=instance()["ports"])
        return {"success": True}
