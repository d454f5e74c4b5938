"""Figures of this project beside their targets, every ratio measured side by side in one run. Start in ``__main__.py``.

Nothing here imports Polars or DuckDB into the process that measures: the system counts the memory of whoever starts a
program among the program's own. What needs them is a program of its own (``python -m benchmarks.NAME``).
"""
