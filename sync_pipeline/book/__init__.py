"""The book: what all processes share of nights, ranges and jobs. The only room that knows SQLite and PostgreSQL.

One class per noun over one ``Database`` (start reading at ``database.py``); ``Book`` is all of them. The statements are
one text for both databases. SQLAlchemy and alembic are loaded when a book is made or its layout is an older one: loading
them takes longer than the whole of ``sync-pipeline status``.
"""
