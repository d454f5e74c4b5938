"""Memory goes back to the system, unless the environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sync_pipeline.memory import JEMALLOC, JEMALLOC_OF_A_SERVER, JEMALLOC_VARIABLE

SERVING = "import sync_pipeline.cli, sync_pipeline.memory as memory; memory.keep_for_a_while()"
"""How ``org serve`` begins."""


def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program that inherits nothing that was said to Polars or its allocator here."""
    ours = (JEMALLOC_VARIABLE, "POLARS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, check=True)


def said_to_the_allocator(program: str = "import sync_pipeline", **environment: str) -> str:
    """What the allocator finds when Polars is loaded."""
    told = f"{program}; import os, sys; assert 'polars' not in sys.modules; print(os.environ['{JEMALLOC_VARIABLE}'])"
    return run(told, **environment).stdout.strip()


def test_the_allocator_is_told_before_polars_is_there() -> None:
    assert said_to_the_allocator() == JEMALLOC


def test_what_the_environment_says_of_it_stays() -> None:
    assert said_to_the_allocator(**{JEMALLOC_VARIABLE: "narenas:1"}) == "narenas:1"


def test_a_server_is_told_to_keep_for_a_while() -> None:
    assert said_to_the_allocator(SERVING) == JEMALLOC_OF_A_SERVER


def test_a_server_that_a_user_of_polars_has_started_is_told_so_too() -> None:
    before = f"dirty_decay_ms:500,{JEMALLOC}"

    assert said_to_the_allocator(SERVING, **{JEMALLOC_VARIABLE: before}) == f"dirty_decay_ms:500,{JEMALLOC_OF_A_SERVER}"


def test_where_polars_is_there_already_nothing_is_changed() -> None:
    late = "import sync_pipeline, polars, sys; from sync_pipeline import memory; memory.keep_for_a_while()"

    # Polars puts words of its own before ours.
    assert said_to_the_allocator(f"{late}; del sys.modules['polars']").endswith(JEMALLOC)


def test_what_the_environment_says_of_it_stays_in_a_server() -> None:
    assert said_to_the_allocator(SERVING, **{JEMALLOC_VARIABLE: "narenas:1"}) == "narenas:1"


@pytest.mark.parametrize("program", ["import sync_pipeline", SERVING])
def test_the_allocator_understands_what_it_is_told(program: str) -> None:
    """jemalloc complains of every option that it does not know, and goes on."""
    assert run(f"{program}; import polars; polars.Series([1]).sum()").stderr == ""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how much memory a process had")
def test_a_result_file_is_read_in_small_pieces(tmp_path: Path) -> None:
    """How much is in memory beyond a first, small file, against the bytes of a large one."""
    program = """
import re, sys
from pathlib import Path
import sync_pipeline
from sync_pipeline.salesforce.csv_results import read_frames

def peak(path):
    with open(path, "rb") as file:
        for frame in read_frames(file):
            assert frame.height
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1))

first = peak(sys.argv[1])
print(peak(sys.argv[2]) - first)
"""
    line = b'"EXT-0000000001","some name that is longer than a view","Closed Won","123456.78","2026-11-26"\n'
    small, large = tmp_path / "small.csv", tmp_path / "large.csv"
    for path, rows in ((small, 2_000), (large, 400_000)):
        path.write_bytes(b"a,b,c,d,e\n" + line * rows)

    beyond = run(program, str(small), str(large), POLARS_MAX_THREADS="2").stdout

    assert int(beyond) < 1.2 * large.stat().st_size  # 2 by default, 0.6 so
