"""Wall 1, the wire: the only place that makes HTTP requests to the org.

``Session`` (``session.py``) sends every request: it logs in (``auth.py``), reads and bounds answers (``answer.py``),
retries by one table and counts the calls. On top of it stand ``DataCloud`` (SQL over the source), ``Bulk`` (ingest and
query jobs) and ``Soql`` (counts, describe, limits). Errors leave this room as the classes of ``domain/errors.py``.
"""
