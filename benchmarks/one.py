"""One solver on one problem, in a process of its own; prints a line of JSON.

Needs numpy and torch for the problem; the peer named must be installed in the environment that runs
this file.  Peers get the dense float32 cost matrix (scipy and POT convert it to float64, OR-tools takes
integers); building it counts for them as it does for us.
"""

import argparse
import json
import resource
import time

import numpy as np
from problems import factors, product_seconds

OURS = {"saematch": "auto", "saematch-float32": "float32"}
"""Our solver by precision of its products; auto: bfloat16 where the processor has it."""
STEPS = 1 << 30
"""OR-tools takes integers: the greatest cost is so many steps."""


def dense(rows, columns) -> np.ndarray:
    """The cost matrix, float32, in the fewest passes."""
    import torch

    out = torch.empty(len(rows), len(columns))
    torch.add(rows.square().sum(1)[:, None], columns.square().sum(1)[None], out=out)
    out.addmm_(rows, columns.T, alpha=-2)
    return out.numpy()


def solve(name: str, rows, columns) -> np.ndarray:
    """The column of each row."""
    if name in OURS:
        from saematch import Certified
        from saematch import solve as ours

        found = ours(rows, columns, Certified(precision=OURS[name]))
        print(json.dumps({"gap": found.gap, "parts": dict(found.seconds)}), flush=True)
        return found.columns
    costs = dense(rows, columns)
    if name == "scipy":
        from scipy.optimize import linear_sum_assignment

        return linear_sum_assignment(costs)[1]
    if name == "lapjv":
        import lapjv

        return lapjv.lapjv(costs)[0]
    if name == "pot":
        import ot

        weights = np.ones(len(costs))
        plan = ot.lp.emd(weights, weights, costs.astype(np.float64), numItermax=10**9)
        return plan.argmax(axis=1)
    if name == "ortools":
        return _by_ortools(costs)
    import lap  # `lap` and `lapx` install the same module

    return lap.lapjv(costs)[1]


def _by_ortools(costs: np.ndarray) -> np.ndarray:
    from ortools.graph.python import linear_sum_assignment

    n = len(costs)
    solver = linear_sum_assignment.SimpleLinearSumAssignment()
    columns = np.arange(n, dtype=np.int32)
    scale = STEPS / costs.max()
    for row, values in enumerate(costs):
        steps = np.rint(values * scale).astype(np.int64)
        solver.add_arcs_with_cost(np.full(n, row, dtype=np.int32), columns, steps)
    status = solver.solve()
    if status != solver.OPTIMAL:
        raise SystemExit(f"OR-tools says {status}")
    return np.array([solver.right_mate(row) for row in range(n)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("solver")
    parser.add_argument("n", type=int)
    parser.add_argument("d", type=int)
    parser.add_argument("structure")
    parser.add_argument("memory", type=float, help="GiB that may be addressed")
    arguments = parser.parse_args()
    # A solver that asks for more ends with an error of its own, and takes nothing else with it.
    limit = int(arguments.memory * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    rows, columns = factors(arguments.n, arguments.d, arguments.structure)
    if arguments.solver in OURS:
        from saematch.assignment import Certified
        from saematch.assignment import solve as warm

        # Neither importing nor the first compilation is solving.
        warm(rows[:64, :8], columns[:64, :8], Certified())
    product_seconds(rows[:64], columns[:64])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    product = product_seconds(rows, columns)
    started = time.perf_counter()
    assigned = solve(arguments.solver, rows, columns)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    total = float((rows.double() - columns[assigned].double()).square().sum())
    result = {"seconds": seconds, "product": product, "peak_gib": peak / 2**20, "total": total}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
