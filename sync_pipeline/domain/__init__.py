"""Nouns of a nightly sync. Nothing in here does I/O or reads a clock."""
