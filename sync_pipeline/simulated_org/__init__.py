"""The other side: a whole Salesforce org in a folder, one function behind two doors. Start at ``app.py``.

It imports nothing of the pipeline, so that both can never share a mistake. What it does follows Salesforce's documents,
which every file names; what the documents leave open is a knob (``state.Org.setting``). What it has not got it refuses in the
form of the API that was asked (``not_offered.py``), and README, "The simulated org", lists both. Real clients run against it
unchanged in ``sync_pipeline_tests/contract``: what is claimed of them there is what those tests show.
"""
