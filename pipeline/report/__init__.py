"""Self-contained HTML pages: what an evaluation found, and what a model costs to run.

A page is one file that asks the network for nothing. Python prepares plain values (``evaluation.py``, ``benchmark.py``,
``scene.py``, ``charts.py``, ``published.py``); the files in templates/ lay them out.
"""
