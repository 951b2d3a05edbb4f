"""The command line of saematch: parse, call, print."""

from saematch.cli.commands import app, main

__all__ = ["app", "main"]
