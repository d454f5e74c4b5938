"""Where notes arrive in tests: a web server and a mail server on free loopback ports, which keep what they get."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Web(ThreadingHTTPServer):
    """Takes every request with status ``answer``, and remembers those it took."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _WebHandler)
        self.answer = 200
        self.location = ""
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        """Method, path and JSON of each request that was answered with success."""
        self.refused = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def notes(self) -> list[dict[str, Any]]:
        return [document for method, _, document in self.requests if method == "POST"]

    @property
    def titles(self) -> list[str]:
        return [note["title"] for note in self.notes]


class _WebHandler(BaseHTTPRequestHandler):
    server: Web

    def do_POST(self) -> None:
        self._take(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_GET(self) -> None:
        self._take({})

    def _take(self, document: dict[str, Any]) -> None:
        if self.server.answer < 300:
            self.server.requests.append((self.command, self.path, document))
        else:
            self.server.refused += 1
        self.send_response(self.server.answer)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing on stderr."""


class Mail(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as a client needs to hand over a message."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.messages: list[EmailMessage] = []
        self.is_full = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _MailHandler(socketserver.StreamRequestHandler):
    server: Mail

    def handle(self) -> None:
        self._say("220 catcher")
        while line := self.rfile.readline().strip():
            match line.split(b" ")[0].split(b":")[0].upper():
                case b"RCPT" if self.server.is_full:
                    self._say("552 mailbox full")
                case b"EHLO":
                    self._say("250-catcher")
                    self._say("250 AUTH PLAIN")
                case b"AUTH":
                    self._say("235 come in")
                case b"DATA":
                    self._say("354 go on")
                    lines = []
                    while (text := self.rfile.readline()) != b".\r\n":
                        lines.append(text.removeprefix(b"."))
                    self.server.messages.append(message_from_bytes(b"".join(lines), policy=policy.default))
                    self._say("250 taken")
                case b"QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 ok")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """The server answers as long as the ``with`` block lasts; afterwards its port refuses connections."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
