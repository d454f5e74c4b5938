"""The disk: what is staged and what became of it. The only room that knows DuckDB.

Rows live in the range, jobs live in the book. ``range_store.py`` keeps one range of one night (start reading at
``schema.sql``), ``area.py`` the folders, names and locks of SYNC_HOME, and ``comparison.py`` holds two sides of any
size against each other.
"""
