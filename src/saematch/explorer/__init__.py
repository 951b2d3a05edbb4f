"""The explorer: a local web page over a run directory.

1. `run_files`: the finished files of a run, each checked against the manifest before it is read.
2. `database`: DuckDB over those files, locked to their folders.
3. `catalogue`: a small index per SAE, of all that search and following need of its features;
   `catalogue_query`: the SQL that makes it.
4. `search`, `feature`, `flows`, `comparing`: the questions of a view of the page each, answered as plain
   values.
5. `explorer` names them for the page, and says what there is and what is missing; `server` serves both and
   lets nobody else in, `one_file` writes them into a file.
"""
