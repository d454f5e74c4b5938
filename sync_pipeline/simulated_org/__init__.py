"""The other side: a whole Salesforce org in a folder, one function behind two doors. Start at ``app.py``.

It imports nothing of the pipeline, so that both can never share a mistake. What it does follows Salesforce's documents,
which every file names; what the documents leave open is a knob (``state.Org.setting``).
"""
