"""The real engine behind Data Cloud SQL, asked as the service itself asks it.

Data Cloud runs Hyper; ``hyperd``, the same engine, comes with the package ``tableauhyperapi``. The package's Python
interface knows no parameters, but the engine's own query service does: four calls over gRPC, of which both HTTP APIs of
Data Cloud are thin faces. Tables are filled through the Python interface and lie in files that the engine owns, which is
why this engine would write to them where Data Cloud refuses to.

The engine is a process of its own on free loopback ports. It calls back over a connection that this process holds and
ends by itself when that closes, so it outlives no test, however that ends. It sends no usage data unless it is told to.

Messages of the service: https://github.com/forcedotcom/datacloud-jdbc (``hyper_service.proto``)
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Style = Literal["NAMED", "QUESTION_MARK", "DOLLAR_NUMBERED"]
Mode = Literal["ADAPTIVE", "ASYNC", "SYNC"]
Parameters = Sequence[Mapping[str, Any]]
"""Each with ``type`` (a lower-case SQL name), ``value`` (a text or null) and, in style NAMED, ``name``."""

STYLES: dict[str, int] = {"DOLLAR_NUMBERED": 1, "NAMED": 2, "QUESTION_MARK": 3}
MODES: dict[str, int] = {"ASYNC": 1, "SYNC": 2, "ADAPTIVE": 3}
STATES = ("RUNNING_OR_UNSPECIFIED", "RESULTS_PRODUCED", "FINISHED")
ARROW_IPC, JSON_ARRAY = 5, 6
PAGE_BYTES = 20_000_000
CALL_SECONDS = 120
OWNER = "tableau_internal_user"

SERVICE = "/salesforce.hyperdb.grpc.v1.HyperService/"
MESSAGES: dict[str, str] = {
    "AttachedDatabase": "1 path string, 2 alias string",
    "Setting": "1 key string, 2 value string",
    "QueryParameterJson": "127 data string",
    "ResultRange": "1 row_offset uint64, 2 row_limit uint64, 3 byte_limit uint64",
    "QueryParam": "1 sql string, 2 databases AttachedDatabase*, 3 output_format int32, 4 settings Setting*, "
    "5 transfer_mode int32, 6 param_style int32, 8 json_parameters QueryParameterJson, 9 result_range ResultRange",
    "QueryInfoParam": "1 query_id string, 2 streaming bool",
    "QueryResultParam": "1 query_id string, 2 output_format int32, 5 result_range ResultRange",
    "CancelQueryParam": "1 query_id string",
    "QueryStatus": "1 query_id string, 2 completion_status int32, 4 row_count uint64",
    "StringPart": "127 data string",
    "BinaryPart": "127 data bytes",
    "QueryInfo": "1 query_status QueryStatus",
    "QueryResult": "1 binary_part BinaryPart, 2 string_part StringPart",
    "ExecuteQueryResponse": "6 query_info QueryInfo, 7 query_result QueryResult",
    "Empty": "",
    # What an error carries along, in the trailer that gRPC keeps for its details.
    "Detail": "1 type_url string, 2 value bytes",
    "Status": "1 code int32, 2 message string, 3 details Detail*",
    "ErrorInfo": "1 primary_message string, 2 sqlstate string, 3 customer_hint string, 4 customer_detail string",
}
"""The service's messages as far as they are used: number, name and type of each field, ``*`` for many of them. On the
wire an enum is its number and a map a list of pairs, so they are told as such."""


class SqlError(Exception):
    """What the engine refused. ``sqlstate`` is its five characters, ``code`` the name of the gRPC status."""

    def __init__(self, message: str, *, sqlstate: str, code: str, detail: str = "", hint: str = "") -> None:
        super().__init__(" ".join(filter(None, (sqlstate, message, detail, hint))))
        self.message = message
        self.sqlstate = sqlstate
        self.code = code
        self.detail = detail
        self.hint = hint


@dataclass(frozen=True)
class Progress:
    """How far a statement is. ``state`` is one of ``STATES``; ``rows`` is final once ``is_complete``."""

    query_id: str
    state: str
    rows: int

    @property
    def is_complete(self) -> bool:
        return self.state != STATES[0]


@dataclass(frozen=True)
class Number:
    """A number of the engine's JSON, as it is written there: no digit and no zero is lost."""

    text: str


@dataclass
class Rows:
    """Columns as the engine describes them (``name``, ``type``, ``nullable``, sizes) and rows as its JSON has them."""

    columns: list[dict[str, Any]] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [column["name"] for column in self.columns]

    @property
    def types(self) -> list[str]:
        return [column["type"] for column in self.columns]

    def take(self, part: str) -> None:
        """Adds what one message holds: an object with the columns, or an array of rows, or nothing."""
        if part.startswith("{"):
            self.columns = json.loads(part)["columns"]
        elif part:
            self.rows += json.loads(part, parse_int=Number, parse_float=Number, parse_constant=Number)


class Hyper:
    """A client of a running engine; its statements see the tables of ``file``, if one is named."""

    def __init__(self, channel: grpc.Channel, *, sql_address: str, folder: Path, file: Path | None = None) -> None:
        self._channel = channel
        self.sql_address = sql_address
        self._folder = folder
        self._file = file

    def holding(self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[str | None]] = ()) -> Hyper:
        """A client of the same engine that sees this new table alone: columns by name with their SQL types, and rows.

        Values are texts, which the engine itself casts to the type of their column.
        """
        import tableauhyperapi as api

        file = self._folder / f"{uuid.uuid4().hex}.hyper"
        texts = api.TableDefinition("texts", [api.TableDefinition.Column(name, api.SqlType.text()) for name in columns])
        name = api.escape_name(table)
        described = ", ".join(f"{api.escape_name(column)} {kind}" for column, kind in columns.items())
        cast = ", ".join(f"CAST({api.escape_name(column)} AS {kind})" for column, kind in columns.items())
        endpoint = api.Endpoint(self.sql_address, "tests")
        with api.Connection(endpoint, file, api.CreateMode.CREATE) as connection:
            connection.catalog.create_table(texts)
            with api.Inserter(connection, texts) as inserter:
                inserter.add_rows(rows)
                inserter.execute()
            connection.execute_command(f"CREATE TABLE {name} ({described})")
            connection.execute_command(f'INSERT INTO {name} SELECT {cast} FROM "texts"')
            connection.execute_command('DROP TABLE "texts"')
        return Hyper(self._channel, sql_address=self.sql_address, folder=self._folder, file=file)

    def query(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        style: Style = "NAMED",
        settings: Mapping[str, str] | None = None,
    ) -> Rows:
        """All rows of a statement. Raises ``SqlError``."""
        progress, found = self.submit(sql, parameters, style=style, settings=settings)
        while not progress.is_complete:
            progress = self.status(progress.query_id)
        while len(found.rows) < progress.rows:
            found.rows += self.rows(progress.query_id, offset=len(found.rows)).rows
        return found

    def submit(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        style: Style = "NAMED",
        settings: Mapping[str, str] | None = None,
        mode: Mode = "ADAPTIVE",
        limit: int | None = None,
    ) -> tuple[Progress, Rows]:
        """Starts a statement. Its columns come along and, unless it is ASYNC, up to ``limit`` of its first rows."""
        request = messages()["QueryParam"](
            sql=sql,
            databases=[] if self._file is None else [{"path": str(self._file), "alias": "source"}],
            output_format=JSON_ARRAY,
            settings=[{"key": key, "value": value} for key, value in (settings or {}).items()],
            transfer_mode=MODES[mode],
            param_style=STYLES[style],
            # The engine's reader of this JSON refuses \u escapes beyond 0x7F, so letters go as they are.
            json_parameters={"data": json.dumps(list(parameters), ensure_ascii=False)} if parameters else None,
            result_range=None if limit is None else {"row_limit": limit, "byte_limit": PAGE_BYTES},
        )
        progress, found = Progress("", STATES[0], 0), Rows()
        for answer in self._answers("ExecuteQuery", request, "ExecuteQueryResponse"):
            if answer.query_info.HasField("query_status"):
                progress = _progress(answer.query_info.query_status)
            found.take(answer.query_result.string_part.data)
        return progress, found

    def status(self, query_id: str) -> Progress:
        """How far a statement is; waits for its end, but no longer than the engine lets a call wait."""
        request = messages()["QueryInfoParam"](query_id=query_id, streaming=True)
        progress = Progress(query_id, STATES[0], 0)
        for answer in self._answers("GetQueryInfo", request, "QueryInfo", query_id=query_id):
            if answer.HasField("query_status"):
                progress = _progress(answer.query_status)
        return progress

    def rows(self, query_id: str, *, offset: int, limit: int | None = None) -> Rows:
        """Stored rows from ``offset`` on, no more than ``limit``; fewer where they are large."""
        found = Rows()
        for answer in self._stored(query_id, offset, limit, output_format=JSON_ARRAY):
            found.take(answer.string_part.data)
        return found

    def arrow(self, query_id: str, *, offset: int, limit: int | None = None) -> bytes:
        """The same rows as one Arrow stream."""
        answers = self._stored(query_id, offset, limit, output_format=ARROW_IPC)
        return b"".join(answer.binary_part.data for answer in answers)

    def _stored(self, query_id: str, offset: int, limit: int | None, *, output_format: int) -> Iterator[Any]:
        row_range = {"row_offset": offset, "byte_limit": PAGE_BYTES} | ({} if limit is None else {"row_limit": limit})
        request = messages()["QueryResultParam"](query_id=query_id, output_format=output_format, result_range=row_range)
        return self._answers("GetQueryResult", request, "QueryResult", query_id=query_id)

    def cancel(self, query_id: str) -> None:
        """Gives a statement up; one that has ended stays as it is."""
        request = messages()["CancelQueryParam"](query_id=query_id)
        for _ in self._answers("CancelQuery", request, "Empty", query_id=query_id):
            pass

    def _answers(self, call: str, request: Any, answer: str, *, query_id: str = "") -> Iterator[Any]:
        send = self._channel.unary_stream(
            SERVICE + call,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=messages()[answer].FromString,
        )
        metadata = [("x-hyperdb-query-id", query_id)] if query_id else []
        try:
            yield from send(request, metadata=metadata, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise _sql_error(error) from None


@contextmanager
def running(folder: Path) -> Iterator[Hyper]:
    """An engine that keeps its files and its log in ``folder``.

    Where it is not installed the test is skipped with a word, in CI it fails: there it must have run.
    """
    program = _program()
    if program is None:
        word = "the real Hyper engine is not here: the package tableauhyperapi of requirements-test.lock brings it"
        if os.environ.get("CI"):
            pytest.fail(word)
        pytest.skip(word)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        process = subprocess.Popen(
            [
                program,
                "run",
                "--skip-license=true",
                "--no-password=true",
                f"--init-user={OWNER}",
                "--grpc-service-roles=" + json.dumps({"default": {"user": OWNER, "authorizations": []}}),
                "--grpc-persist-results=true",
                "--default-database-version=3",  # files of older ones hold no numeric(38,18)
                "--listen-connection=tab.tcp://127.0.0.1:auto,tcp.grpc://127.0.0.1:auto",
                f"--callback-connection=tab.tcp://127.0.0.1:{listener.getsockname()[1]}",
                f"--log-dir={folder}",
            ],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            sql_address, grpc_address = _addresses(process)
            called, _ = listener.accept()
            # A proxy of the environment is for hosts outside, this one is here.
            options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
            with called, grpc.insecure_channel(grpc_address, options) as channel:
                yield Hyper(channel, sql_address=f"tab.tcp://{sql_address}", folder=folder)
        finally:
            # Its files are for nobody, so it need not end in order, as it would when the connection closes.
            process.kill()
            process.communicate()


def _program() -> Path | None:
    package = importlib.util.find_spec("tableauhyperapi")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent / "bin" / "hyper"
    return next((file for name in ("hyperd", "hyperd.exe") if (file := folder / name).is_file()), None)


def _addresses(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Where it listens, as it says itself, line by line: for SQL connections first, then for the query service."""
    told = ""
    for line in process.stdout or ():
        told += line
        if found := re.search(r"gRPC listening on (\S+)", told):
            return re.search(r"listening to (\S+)", told)[1], found[1]  # type: ignore[index]
    raise RuntimeError(f"hyperd did not start: {told}")


@cache
def messages() -> dict[str, Any]:
    """The classes of ``MESSAGES``."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="hyper.proto", package="hyper", syntax="proto3")
    for name, fields in MESSAGES.items():
        described = file.message_type.add(name=name)
        for line in filter(None, fields.split(", ")):
            number, label, kind = line.split()
            made = described.field.add(name=label, number=int(number), label=kinds.LABEL_OPTIONAL)
            if kind.endswith("*"):
                made.label = kinds.LABEL_REPEATED
            if kind[0].isupper():
                made.type, made.type_name = kinds.TYPE_MESSAGE, f".hyper.{kind.rstrip('*')}"
            else:
                made.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"hyper.{name}")) for name in MESSAGES}


def _progress(status: Any) -> Progress:
    return Progress(status.query_id, STATES[status.completion_status], status.row_count)


def _sql_error(error: Any) -> Exception:
    """What the engine says of an error, or the error itself, if it is none of the engine's."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in messages()["Status"].FromString(value).details:
                info = messages()["ErrorInfo"].FromString(detail.value)
                return SqlError(
                    info.primary_message,
                    sqlstate=info.sqlstate,
                    code=error.code().name,
                    detail=info.customer_detail.strip(),
                    hint=info.customer_hint,
                )
    return error
