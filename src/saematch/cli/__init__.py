"""The command line of saematch: parse, call, print.

A verb is a function with `options.verb`, one file per group of them; its flags are the settings of its
config.  Heavy modules are imported inside the verbs, so that `saematch --help` answers at once.
"""

from saematch.cli.entry import app, main

__all__ = ["app", "main"]
