"""A local web page over a run directory: find features, follow them, see the whole, compare, take away.

`index.py` reads the run's tables into DuckDB once; `questions.py` answers; `server.py` serves the page and
the answers on 127.0.0.1; `page.py` puts both into one file that needs no server.
"""
