"""The small synthetic run that the explorer's tests ask about, and a client to ask with."""

import sys
from pathlib import Path

from starlette.testclient import TestClient

from saematch.explorer.explorer import Explorer
from saematch.explorer.server import application

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from synthetic_run import Shape, write_run

__all__ = ["PORT", "SHAPE", "Shape", "client_of", "write_run"]

PORT = 8321
SHAPE = Shape(layers=4, features=60, unmatched=0.1, seed=5)


def client_of(explorer: Explorer) -> TestClient:
    return TestClient(application(explorer, PORT), base_url=f"http://127.0.0.1:{PORT}")
