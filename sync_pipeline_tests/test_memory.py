"""Memory goes back to the system, unless the environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

from sync_pipeline.memory import JEMALLOC, JEMALLOC_VARIABLE


def said_to_the_allocator(**environment: str) -> str:
    """What the allocator finds when Polars is loaded."""
    told = (
        f"import sync_pipeline, os, sys; assert 'polars' not in sys.modules; print(os.environ['{JEMALLOC_VARIABLE}'])"
    )
    kept = {name: value for name, value in os.environ.items() if name != JEMALLOC_VARIABLE}
    run = subprocess.run(
        [sys.executable, "-c", told], env={**kept, **environment}, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_the_allocator_is_told_before_polars_is_there() -> None:
    assert said_to_the_allocator() == JEMALLOC


def test_what_the_environment_says_of_it_stays() -> None:
    assert said_to_the_allocator(**{JEMALLOC_VARIABLE: "narenas:1"}) == "narenas:1"


def test_the_allocator_understands_what_it_is_told() -> None:
    """jemalloc complains of every option that it does not know, and goes on."""
    run = subprocess.run(
        [sys.executable, "-c", "import sync_pipeline, polars; polars.Series([1]).sum()"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert run.stderr == ""
