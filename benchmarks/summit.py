"""The summit: a pair as wide as Gemma Scope's widest dictionary, 1,048,576 × 2,304, on one GPU.

python benchmarks/summit.py                                      # needs some 80 GiB on the device
python benchmarks/summit.py --n 4096 --d 576 --device cpu        # the same code, small

Factors are drawn on the device.  Column duals go to the checkpoint after every round: run again after a
kill or a budget that was too short, and it goes on from there.  Prints a line of JSON.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from saematch import Certified, solve

PERSISTING = 0.65
BLOCK = 1 << 16


def draw(n: int, d: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """`persisting` of problems.py, drawn where it is used and in blocks."""
    generator = torch.Generator(device).manual_seed(0)
    rows, columns = (torch.empty(n, d, device=device) for _ in range(2))
    for first in range(0, n, BLOCK):
        part = slice(first, min(n, first + BLOCK))
        rows[part].normal_(0, d**-0.5, generator=generator)
        columns[part].normal_(0, d**-0.5, generator=generator)
        copied = slice(first, min(part.stop, int(PERSISTING * n)))
        if copied.start < copied.stop:
            columns[copied].mul_(0.5).add_(rows[copied])
    return rows, columns[torch.randperm(n, generator=generator, device=device)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_048_576)
    parser.add_argument("--d", type=int, default=2304)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=480, help="time budget of the solver")
    parser.add_argument("--checkpoint", type=Path, default=Path("summit.npz"))
    arguments = parser.parse_args()
    rows, columns = draw(arguments.n, arguments.d, arguments.device)
    started = time.perf_counter()
    solver = Certified(
        seconds=arguments.seconds,
        device=arguments.device,
        scan="torch",
        checkpoint=arguments.checkpoint,
    )
    found = solve(rows, columns, solver)
    result = {
        "n": arguments.n,
        "d": arguments.d,
        "device": torch.cuda.get_device_name() if rows.is_cuda else arguments.device,
        "seconds": time.perf_counter() - started,
        "gap": found.gap,
        "stopped": found.stopped,
        "parts": dict(found.seconds),
        **found.details,
    }
    if rows.is_cuda:
        result["device_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps(result))


if __name__ == "__main__":
    main()
