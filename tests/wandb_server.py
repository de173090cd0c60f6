"""A minimal wandb server for runs that log numbers: accepts runs and stores the rows of their histories.

The server supports neither accounts nor artifacts; a run warns that its tables are not logged, and continues.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Stores the received data.

    Attributes:
        histories: rows by the id of the run, in the order of arrival.
        groups: group of each run.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.histories: dict[str, list[dict[str, Any]]] = {}
        self.groups: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        content: dict[str, Any] = {}
        if self.path == "/graphql":
            request = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            content = {"data": self.graphql(found[1] if found else "", request.get("variables") or {})}
        elif stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            lines = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.server.histories.setdefault(stream[1], []).extend(json.loads(line) for line in lines)
        reply = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    do_GET = do_POST = do_PUT = answer

    def graphql(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        owner = {"id": "1", "name": "me"}
        if name == "RunResumeStatus":
            rows = self.server.histories.get(variables["name"])
            return {"model": {"id": "2", "name": variables["project"], "entity": owner, "bucket": self.bucket(rows)}}
        if name == "UpsertBucket":
            if variables.get("groupName"):
                self.server.groups[variables["name"]] = variables["groupName"]
            project = {"id": "2", "name": variables.get("project"), "entity": owner}
            bucket = {"id": "3", "name": variables["name"], "displayName": "a run", "project": project}
            return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0}, "inserted": True}}
        if name == "CreateRunFiles":
            return {"createRunFiles": {"runID": "3", "uploadHeaders": [], "files": []}}
        return {}

    def bucket(self, rows: list[dict[str, Any]] | None) -> dict[str, Any] | None:
        if rows is None:
            return None
        counts = {"historyLineCount": len(rows), "eventsLineCount": 0, "logLineCount": 0}
        tails = {"historyTail": json.dumps([json.dumps(rows[-1])] if rows else []), "eventsTail": "[]"}
        texts = {"config": "{}", "summaryMetrics": "{}", "tags": [], "wandbConfig": '{"t": 1}', "notes": None}
        return {"id": "3", "name": "a run", "displayName": "a run", **counts, **tails, **texts}

    def log_message(self, *arguments: object) -> None:
        """Prints no log line."""


@contextmanager
def wandb_server() -> Iterator[Server]:
    """Runs the server in a thread of this process."""
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
