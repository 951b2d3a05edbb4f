"""The explorer: a local web page over a run directory.

1. `run_files`: the finished files of a run, each checked against the manifest before it is read.
2. `database`: DuckDB over those files, locked to their folders.
3. `catalogue`: a small index per SAE, of all that finding and following need of its features;
   `sources`: the files it is made from, `catalogue_query`: how, `index_file` writes it, `rows`: its
   single features.
4. `selection`, `finding`, `following`, `evidence`, `flows`, `comparing`, `two_runs`, `taking`: one
   question of the page each, answered as plain values; `overview`: what there is and what is missing.
5. `explorer` names them for the page (`page`: its own files); `server` serves both behind `guard`,
   `one_file` writes them into a file.
"""
