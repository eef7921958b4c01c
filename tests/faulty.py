"""A proxy between a client and an HTTP server of this machine that fails as networks do."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Fault = Literal["503", "cut", "silence"] | None


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on, or does not.

    Args:
        port: Of the server.
        fault: Which fault a request meets: asked with its method, its path, and its number among all.

    Attributes:
        seen: How often each method and path was asked for.
        sent: Bytes of all bodies that were passed back.
        faults: How often each fault was made.
    """

    daemon_threads = True

    def __init__(self, port: int, fault: Callable[[str, str, int], Fault] = lambda *_: None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.to, self.fault = port, fault
        self.seen: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()
        self.ranges: list[tuple[str, str]] = []
        self.sent = 0
        self.lock = threading.Lock()
        self.ended = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self) -> None:
        """No more."""
        self.ended.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def log_message(self, *_: Any) -> None:
        pass

    def _pass_on(self) -> None:
        proxy, path = self.server, self.path.partition("?")[0]
        body = self._body()
        with proxy.lock:
            number = sum(proxy.seen.values())
            proxy.seen[self.command, path] += 1
            if "Range" in self.headers:
                proxy.ranges.append((path, self.headers["Range"]))
            fault = proxy.fault(self.command, path, number)
            proxy.faults[fault or "none"] += 1
        if fault == "silence":
            proxy.ended.wait(20)
            self.close_connection = True
            return
        if fault == "503":
            content = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            self._answer(503, {"Content-Type": "application/xml"}, content, len(content))
            return
        upstream = http.client.HTTPConnection("127.0.0.1", proxy.to, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        size = len(content) if self.command != "HEAD" else int(answer.headers.get("Content-Length", 0))
        if fault == "cut":  # after the work was done, so that a request that is repeated does it twice
            content, self.close_connection = content[: len(content) // 2], True
        with proxy.lock:
            proxy.sent += len(content)
        self._answer(answer.status, dict(answer.headers), content, size)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Expect"):
            self.send_response_only(100)
            self.end_headers()
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, headers: dict[str, str], content: bytes, size: int) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(content)
