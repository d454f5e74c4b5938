"""The floor: a mover that does nothing but the requests of a recorded night.

``python -m benchmarks.floor RECORDING BASE_URL`` asks for the same pages and the same results over two connections and
receives them into one buffer each without a look at them; an upload goes from its file to the socket by ``sendfile``.
Requests about one stored result, or about one job, keep their order; two of these stories are told at a time.
"""

from __future__ import annotations

import json
import queue
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_plus, urlsplit

from benchmarks.recording import Request, in_path, named_in, requests

CONNECTIONS = 2
BUFFER_BYTES = 1024 * 1024
POLL_SECONDS = 0.05
JOB = re.compile(r"/jobs/ingest/[^/?]+$")
UNDER_WAY = re.compile(rb'"state"\s*:\s*"(?:UploadComplete|InProgress)"')

Story = list[Request]


@dataclass
class Names:
    """What the recorded night's tokens, results and jobs are called this time. Shared by all connections."""

    now: dict[str, str] = field(default_factory=dict)

    def learn(self, before: Iterable[str], now: Iterable[str]) -> None:
        self.now.update(zip(before, now, strict=True))

    def in_target(self, target: str) -> str:
        return self._renamed(target, in_path)

    def in_body(self, body: str) -> str:
        return self._renamed(body, quote_plus)

    def _renamed(self, text: str, spelled: Callable[[str], str]) -> str:
        """A text speaks of one thing at most. Only that is renamed, because another one may have its name now."""
        before = next((name for name in list(self.now) if spelled(name) in text), None)
        return text if before is None else text.replace(spelled(before), spelled(self.now[before]))

    def in_header(self, value: str) -> str:
        scheme, blank, token = value.partition(" ")
        return scheme + blank + self.now.get(token, token)


class Connection:
    """HTTP/1.1 over one socket with one buffer, as far as the org speaks it."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self._host = parts.netloc
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self.sent = self.received = self.requests = 0

    def close(self) -> None:
        self._socket.close()

    def ask(self, request: Request, names: Names, folder: Path) -> bytes:
        """The answer's head, with its body only where names or a state are looked for in it. Raises ``OSError`` for an
        answer that is not a good one."""
        body = names.in_body(request.body).encode()
        size = (folder / request.file).stat().st_size if request.file else len(body)
        lines = [f"{request.method} {names.in_target(request.target)} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {names.in_header(value)}" for name, value in request.headers.items()]
        lines += ["Accept-Encoding: identity", f"Content-Length: {size}", "", ""]
        self._socket.sendall("\r\n".join(lines).encode() + body)
        if request.file:
            with (folder / request.file).open("rb") as file:
                self._socket.sendfile(file)
        self.sent += size
        self.requests += 1
        answer = self._receive(keep=request.method == "POST" or JOB.search(request.target) is not None)
        if not answer.startswith(b"HTTP/1.1 2"):
            raise OSError(f"{request.method} {names.in_target(request.target)}: {answer[:1000]!r}")
        return answer

    def _receive(self, *, keep: bool) -> bytes:
        head = b"".join(iter(self._line, b"\r\n"))
        kept = [head]
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        if b"chunked" in fields.get(b"transfer-encoding", b""):
            while size := int(self._line(), 16):
                self._take(size, kept if keep else None)
                self._line()
            self._line()
        else:
            self._take(int(fields.get(b"content-length", b"0")), kept if keep else None)
        return b"".join(kept)

    def _take(self, size: int, kept: list[bytes] | None) -> None:
        self.received += size
        while size:
            if self._start == self._end:
                self._fill()
            taken = min(size, self._end - self._start)
            if kept is not None:
                kept.append(bytes(self._view[self._start : self._start + taken]))
            self._start += taken
            size -= taken

    def _line(self) -> bytes:
        while (newline := self._buffer.find(b"\n", self._start, self._end)) < 0:
            if self._start:
                self._view[: self._end - self._start] = self._view[self._start : self._end]
                self._start, self._end = 0, self._end - self._start
            self._fill()
        line = bytes(self._view[self._start : newline + 1])
        self._start = newline + 1
        return line

    def _fill(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        received = self._socket.recv_into(self._view[self._end :])
        if not received:
            raise OSError("the org closed the connection")
        self._end += received


def stories(asked: Iterable[Request]) -> tuple[Story, list[Story]]:
    """The logins, and everything else in the order it came: what is about one result or one job as one story."""
    logins: Story = []
    told: dict[str, Story] = {}
    for request in asked:
        if request.target.partition("?")[0].endswith("/token"):
            logins.append(request)
            continue
        subject = next((name for name in told if in_path(name) in request.target), "")
        if not subject:
            is_named = request.method == "POST" and request.named
            subject = request.named[0] if is_named else f"request {request.number}"
        told.setdefault(subject, []).append(request)
    return logins, list(told.values())


def tell(story: Story, connection: Connection, names: Names, folder: Path) -> None:
    """Asks what one story asks. A job that has not ended yet is looked at until it has."""
    for request in story:
        answer = connection.ask(request, names, folder)
        if request.method == "POST":
            names.learn(request.named, named_in(answer))
        is_last_look = request.method == "GET" and JOB.search(request.target) is not None
        while is_last_look and UNDER_WAY.search(answer):
            time.sleep(POLL_SECONDS)
            answer = connection.ask(request, names, folder)


def move(folder: Path, base_url: str) -> dict[str, int]:
    """Does what the recorded night asked for; gives its requests and the bytes of all bodies, both ways."""
    logins, told = stories(requests(folder))
    names = Names()
    connections = [Connection(base_url) for _ in range(CONNECTIONS)]
    tell(logins, connections[0], names, folder)
    left: queue.SimpleQueue[Story] = queue.SimpleQueue()
    for story in told:
        left.put(story)
    failures: list[Exception] = []

    def work(connection: Connection) -> None:
        try:
            while not failures:
                tell(left.get_nowait(), connection, names, folder)
        except queue.Empty:
            return
        except Exception as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for connection in connections:
        connection.close()
    if failures:
        raise failures[0]
    return {
        "requests": sum(connection.requests for connection in connections),
        "sent": sum(connection.sent for connection in connections),
        "received": sum(connection.received for connection in connections),
    }


if __name__ == "__main__":
    print(json.dumps(move(Path(sys.argv[1]), sys.argv[2])))
