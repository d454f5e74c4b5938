"""Verbs of a night, in plain Python: plan, extract, load, reconcile, and the course of the whole.

Everything outside arrives as an argument (``Walls``): the org, the disk, the clock. Both doors, Dagster and the
terminal, call the same verbs.
"""
