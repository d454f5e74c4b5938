#!/bin/sh
# Hyper, the SQL engine behind Salesforce Data Cloud: a DATE column that is cast to a timestamp and on to text keeps no
# time of day. CAST(CAST(d AS timestamp) AS text) gives 2024-02-29 for a column and 2024-02-29 00:00:00 for a constant of
# the same value; the timestamp between them is right in either case. Whoever writes dates for a field that wants an
# instant by casting twice gets dates, and a trial on constants shows nothing of it.
#
# Installs tableauhyperapi (with the engine hyperd) in a folder of its own. Exit code 0: still so. Not 0: it has changed.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check tableauhyperapi==0.0.26963

cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

from tableauhyperapi import Connection, CreateMode, HyperProcess, Telemetry, __version__

ASKED = {
    "column, cast twice": "SELECT CAST(CAST(d AS timestamp) AS text) FROM days",
    "constant, cast twice": "SELECT CAST(CAST(date '2024-02-29' AS timestamp) AS text)",
    "column, the timestamp between": "SELECT CAST(d AS timestamp) = timestamp '2024-02-29 00:00:00' FROM days",
    "column, a date plus a time": "SELECT CAST(d + time '00:00' AS text) FROM days",
}
SEEN = {
    "column, cast twice": "2024-02-29",
    "constant, cast twice": "2024-02-29 00:00:00",
    "column, the timestamp between": True,
    "column, a date plus a time": "2024-02-29 00:00:00",
}

quiet = {"log_config": ""}
with HyperProcess(Telemetry.DO_NOT_SEND_USAGE_DATA_TO_TABLEAU, parameters=quiet) as process:
    with Connection(process.endpoint, "days.hyper", CreateMode.CREATE_AND_REPLACE) as connection:
        connection.execute_command("CREATE TABLE days (d date)")
        connection.execute_command("INSERT INTO days VALUES (date '2024-02-29')")
        answers = {name: connection.execute_scalar_query(sql) for name, sql in ASKED.items()}

print(f"tableauhyperapi {__version__}")
for name, answer in answers.items():
    print(f"{name}: {answer!r}")
if answers != SEEN:
    print(f"It has changed; seen before: {SEEN}")
    sys.exit(1)
print("A date column that is cast to a timestamp and on to text is written without its time, a constant with it.")
PYTHON
