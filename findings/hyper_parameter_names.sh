#!/usr/bin/env bash
# Hyper, the engine behind Salesforce Data Cloud SQL, reads the name of a named parameter as an identifier of its SQL:
# a name that is a keyword is a syntax error, and ordinary words such as :value, :name, :key, :start, :end, :text, :source
# and :after are keywords. In clients of other databases a parameter's name is the caller's own. The same word in double
# quotes (:"after") is accepted, and so is it as the alias of a column without any quotes (1 AS after).
#
# Seen with hyperd main.0.0.26963 (package tableauhyperapi 0.0.26963), asked through its own gRPC query service, the one
# that Data Cloud's query APIs speak of (parameter style NAMED): each word below ends in SQLSTATE 42601,
#   syntax error: got VALUE, expected <identifier>
# while :"value" and :p_value give their value back.
#
# Exits 0 when that is seen again, and otherwise with what has changed. Needs Python 3.9 or later on Linux x86_64, Windows
# or macOS, and an index of packages.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check tableauhyperapi==0.0.26963 grpcio==1.85.3
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import json
import pathlib
import subprocess
import sys

import grpc
import tableauhyperapi

REFUSED = """after before day end first key last left limit month name next offset order position range right rows source
start table target text through user value""".split()
TAKEN = "id low high lo hi state from_key to_key".split()


def field(number: int, content: bytes) -> bytes:
    """One field of a message that holds bytes, as Protocol Buffers write it."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def answer(sql: str, name: str) -> str:
    """What the engine says to a statement with one named parameter, whose value is "b"."""
    parameters = json.dumps([{"name": name, "type": "varchar", "value": "b"}])
    as_json, all_at_once, by_name = 6, 2, 2
    message = (
        field(1, sql.encode())
        + varint(3 << 3) + varint(as_json)
        + varint(5 << 3) + varint(all_at_once)
        + varint(6 << 3) + varint(by_name)
        + field(8, field(127, parameters.encode()))
    )
    try:
        parts = b"".join(execute(message, timeout=60))
    except grpc.RpcError as error:
        return error.details()
    return "its value comes back" if b'[["b"]]' in parts else repr(parts)


program = next((pathlib.Path(tableauhyperapi.__file__).parent / "bin" / "hyper").glob("hyperd*"))
engine = subprocess.Popen(
    [program, "run", "--skip-license=true", "--no-password=true", "--init-user=someone", "--log-dir=.",
     "--grpc-persist-results=true", "--listen-connection=tcp.grpc://127.0.0.1:auto"],
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
)
changed = []
try:
    for line in engine.stdout:
        if "build version" in line:
            print(line.strip())
        if line.startswith("gRPC listening on "):
            address = line.split()[-1]
            break
    channel = grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)])
    execute = channel.unary_stream("/salesforce.hyperdb.grpc.v1.HyperService/ExecuteQuery")
    for word in REFUSED + TAKEN:
        plain = answer(f"SELECT :{word}", word)
        quoted = answer(f'SELECT :"{word}"', word)
        prefixed = answer(f"SELECT :p_{word}", f"p_{word}")
        alias = answer(f"SELECT :p_a AS {word}", "p_a")
        expected = f"syntax error: got {word.upper()}, expected <identifier>" if word in REFUSED else "its value comes back"
        print(f":{word:<10} {plain}")
        if expected not in plain:
            changed.append(f":{word} was expected to answer {expected!r}")
        for spelling, seen in ((f':"{word}"', quoted), (f":p_{word}", prefixed), (f"AS {word}", alias)):
            if seen != "its value comes back":
                changed.append(f"{spelling} answers {seen!r}")
    print(f"all {len(REFUSED + TAKEN)} words in quotes, behind p_ and as an alias: accepted" if not changed else "")
    channel.close()
finally:
    engine.kill()
    engine.wait()
sys.exit("\n".join(["this has changed:", *changed]) if changed else 0)
PYTHON
