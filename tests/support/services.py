"""A local W&B server with just the functions that a run and a workspace need; it keeps what it receives."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "k" * 40
PROJECT = {"id": "p", "name": "rankbench", "entity": {"id": "e", "name": "me"}}
VIEWER = {"id": "u", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}


class Service:
    """A server that keeps the runs, history rows and views that it receives.

    Args:
        stays: whether it stays up; if False, it shuts down once a run has been opened.
    """

    def __init__(self, stays: bool = True) -> None:
        self.stays = stays
        self.runs: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.views: dict[str, dict[str, Any]] = {}
        service = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.headers.get("content-encoding") == "gzip":
                    content = gzip.decompress(content)
                answer = service.answer(self.path, json.loads(content) if content.startswith(b"{") else {})
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.environment = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": f"http://127.0.0.1:{self.server.server_port}"}

    def answer(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Answer one request."""
        if path.endswith("/file_stream"):
            sent = asked.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.rows += [json.loads(line) for line in sent]
            return {}
        if path != "/graphql":
            return {}
        name = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
        known = getattr(self, f"on_{name.group(1)}", None) if name else None
        data = known(asked.get("variables") or {}) if known else None
        return {"data": data} if data is not None else {"errors": [{"message": "this service cannot do that"}]}

    def on_RunResumeStatus(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"model": {**PROJECT, "bucket": None}}

    def on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        self.runs.append(given)
        if not self.stays:
            threading.Thread(target=self.leave).start()
        bucket = {"id": "b", "name": given["name"], "displayName": given["displayName"], "config": "{}"}
        return {"upsertBucket": {"bucket": {**bucket, "project": PROJECT}, "inserted": True}}

    def on_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": VIEWER}

    def on_UpsertView2(self, given: dict[str, Any]) -> dict[str, Any]:
        place = given.get("id") or f"view{len(self.views)}"
        self.views[place] = given
        return {"upsertView": {"view": {"id": place, "name": given["name"]}, "inserted": True}}

    def on_View(self, given: dict[str, Any]) -> dict[str, Any]:
        found = [{"node": {"id": place, **view}} for place, view in self.views.items()]
        return {"project": {"allViews": {"edges": found}}}

    def leave(self) -> None:
        """Shut the server down."""
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def service(stays: bool = True) -> Iterator[Service]:
    """Run a service while the block lasts."""
    made = Service(stays)
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        made.leave()
        thread.join()
