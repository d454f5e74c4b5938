"""Moves every Opportunity row from Salesforce Data Cloud into Salesforce CRM each night, and proves it.

One pass is a *night*: the source is profiled and cut into key *ranges*, each range is read by keyset statements,
staged on disk, upserted through Bulk API 2.0 and accounted for row by row; at the end the org is measured against
the source, value by value. The rooms, from the bottom up:

``domain``         nouns without I/O: key ranges, the field mapping, the plan, counts, errors
``salesforce``     the wire: every HTTP request to the org (Data Cloud SQL, Bulk API 2.0, SOQL)
``notify``         the only other requests: notes to people, and their watchdog
``settings``       every setting, once; the only reader of the environment
``book``           what all processes share of nights, ranges and jobs, in SQLite or PostgreSQL
``staging``        the disk: pages of rows, one DuckDB catalogue per range
``engine``         verbs: plan, extract, load, reconcile, and the course of a night
``defs``, ``cli``  the two doors: Dagster and the terminal
``simulated_org``  a whole Salesforce org in a folder, for trying everything without an account

Start reading at ``domain/keys.py``, then ``engine/deciding.py`` and ``engine/night.py``.
"""

from sync_pipeline.memory import give_back

give_back()
