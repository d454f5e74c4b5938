"""Measurements of the pipeline: ``make bench``."""
