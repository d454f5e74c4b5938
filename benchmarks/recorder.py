"""The org's door with somebody beside it who writes down what comes through.

``python -m benchmarks.recorder --folder ORG --into FOLDER`` answers as ``org serve`` does, and prints what that prints.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from benchmarks.recording import REQUESTS, Request, named_in

SENT = ("authorization", "content-type", "accept", "x-hyperdb-workload")
"""Headers without which the org would answer otherwise."""
STOP_POLL_SECONDS = 0.02


class Recorder:
    """Lets the org answer, and writes down what was asked."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response], folder: Path) -> None:
        self._answer = answer
        self._folder = folder
        self._lock = threading.Lock()
        self._came = 0
        folder.mkdir(parents=True)

    def answer(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self._came += 1
            number = self._came
        file = f"upload-{number:06d}.csv" if request.method == "PUT" else ""
        body = _Body(request.stream, self._folder / file if file else None)
        request.stream = body
        response = self._answer(request)
        stream, named = response.stream, list[str]()
        if request.method == "POST":
            body_of_answer = response.read()
            stream = httpx.ByteStream(body_of_answer)
            named = named_in(b"\n".join(value for _, value in response.headers.raw) + body_of_answer)

        def note(received: int) -> None:
            noted = Request(
                number=number,
                method=request.method,
                target=request.url.raw_path.decode("ascii"),
                headers={name: request.headers[name] for name in SENT if name in request.headers},
                body=body.text,
                file=file,
                named=named,
                received=received,
            )
            with self._lock, (self._folder / REQUESTS).open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(asdict(noted)) + "\n")

        response.stream = _Counted(stream, note)
        return response


class _Body(httpx.SyncByteStream):
    """A request's body on its way into the org, kept as text or, for an upload, in a file."""

    def __init__(self, stream: Any, file: Path | None) -> None:
        self._stream = stream
        self._file = file
        self._pieces: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        if self._file is None:
            for piece in self._stream:
                self._pieces.append(piece)
                yield piece
            return
        with self._file.open("wb") as file:
            for piece in self._stream:
                file.write(piece)
                yield piece

    @property
    def text(self) -> str:
        return b"".join(self._pieces).decode()


class _Counted(httpx.SyncByteStream):
    """An answer's body on its way out; ``note`` is told its bytes at its end."""

    def __init__(self, stream: Any, note: Callable[[int], None]) -> None:
        self._stream = stream
        self._note = note

    def __iter__(self) -> Iterator[bytes]:
        received = 0
        for piece in self._stream:
            received += len(piece)
            yield piece
        self._note(received)

    def close(self) -> None:
        self._stream.close()


def main(arguments: list[str]) -> None:
    """Serves until it is interrupted."""
    from sync_pipeline.simulated_org.app import handle
    from sync_pipeline.simulated_org.login import CLIENTS
    from sync_pipeline.simulated_org.server import Server
    from sync_pipeline.simulated_org.state import Org

    parser = argparse.ArgumentParser(prog="python -m benchmarks.recorder", description="Records a night.")
    parser.add_argument("--folder", type=Path, required=True, help="the org")
    parser.add_argument("--into", type=Path, required=True, help="where the requests go")
    given = parser.parse_args(arguments)
    org = Org(given.folder)
    recorder = Recorder(lambda request: handle(org, request), given.into)
    server = Server(recorder.answer, compresses=lambda: False, leave=org.close)
    client, secret = next(iter(CLIENTS.items()))
    print(f"SALESFORCE_LOGIN_URL={server.base_url}\nSALESFORCE_CLIENT_ID={client}")
    print(f"SALESFORCE_CLIENT_SECRET={secret}", flush=True)
    # Whatever started the benchmark: a program that a shell runs in the background ignores it, and so would this one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        server.serve_forever(STOP_POLL_SECONDS)
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
