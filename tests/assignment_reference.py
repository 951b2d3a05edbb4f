"""Problems of every kind, and their optimum by scipy on the padded cost matrix."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

BARRED = 1e9


@dataclass(frozen=True)
class Case:
    """A problem as `solve` takes it."""

    rows: torch.Tensor
    columns: torch.Tensor
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def costs(self) -> np.ndarray:
        difference = self.rows.double()[:, None] - self.columns.double()[None]
        return difference.square().sum(dim=2).numpy()

    @property
    def row_prices(self) -> np.ndarray:
        return np.broadcast_to(self.options.get("row_prices", np.inf), (len(self.rows),))

    @property
    def column_prices(self) -> np.ndarray:
        complete = len(self.rows) == len(self.columns) and "row_prices" not in self.options
        usual = np.inf if complete else 0.0
        return np.broadcast_to(self.options.get("column_prices", usual), (len(self.columns),))

    @property
    def forbidden(self) -> np.ndarray:
        return np.asarray(self.options.get("forbidden", np.empty((0, 2), dtype=np.int64)))

    @property
    def energy(self) -> float:
        return float(self.rows.double().square().sum() + self.columns.double().square().sum())

    def optimum(self) -> float:
        """Least total, `BARRED` and more if there is no assignment."""
        costs = self.costs
        n, m = costs.shape
        costs[tuple(self.forbidden.T)] = BARRED
        padded = np.full((n + m, n + m), BARRED)
        padded[:n, :m] = costs
        padded[np.arange(n), m + np.arange(n)] = np.minimum(self.row_prices, BARRED)
        padded[n + np.arange(m), np.arange(m)] = np.minimum(self.column_prices, BARRED)
        padded[n:, m:] = 0
        i, j = linear_sum_assignment(padded)
        return float(padded[i, j].sum())


def draw_factors(
    generator: np.random.Generator, kind: str, n: int, m: int, d: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns: reals, integers with ties, constant, dead, far from zero, in clusters."""
    rows, columns = generator.normal(size=(n, d)), generator.normal(size=(m, d))
    if kind == "integers":
        rows = generator.integers(-2, 3, (n, d))
        columns = generator.integers(-2, 3, (m, d))
    elif kind == "constant":
        rows, columns = np.zeros((n, d)), np.full((m, d), generator.integers(0, 2))
    elif kind == "dead":
        rows[: n // 2] *= 1e-6
        columns[: m // 3] *= 1e-6
    elif kind == "offset":
        rows, columns = rows * 0.1 + 100, columns * 0.1 + 100
    elif kind == "clusters":
        rows = rows[generator.integers(0, 1 + n // 8, n)] + 0.05 * generator.normal(size=(n, d))
        columns = columns[generator.integers(0, 1 + m // 8, m)]
        columns = columns + 0.05 * generator.normal(size=(m, d))
    elif kind == "persisting":
        columns[: n // 2] = rows[: n // 2] + 0.3 * columns[: n // 2]
    return rows.astype(np.float32), columns.astype(np.float32)


KINDS = ("reals", "integers", "constant", "dead", "offset", "clusters", "persisting")


def draw(generator: np.random.Generator, largest: int, kind: str | None = None) -> Case:
    """A random problem with up to `largest` rows, with or without prices and forbidden pairs."""
    n = int(generator.integers(1, largest))
    m = n + int(generator.integers(0, 1 + largest // 3)) * int(generator.integers(0, 2))
    d = int(generator.integers(1, 9))
    kind = kind or str(generator.choice(KINDS))
    rows, columns = draw_factors(generator, kind, n, m, d)
    case = Case(torch.from_numpy(rows), torch.from_numpy(columns))
    scale = float(case.costs.max()) + 1e-9
    options: dict[str, Any] = {}
    if generator.random() < 0.4:
        one = generator.random() < 0.5
        options["row_prices"] = generator.uniform(0, 0.6 * scale, () if one else n)
    if generator.random() < 0.3:
        options["column_prices"] = generator.uniform(-0.2 * scale, 0.5 * scale, m)
    if generator.random() < 0.3:
        some = np.flatnonzero(generator.random(n) < 0.5)
        options["forbidden"] = np.column_stack([some, generator.integers(0, m, len(some))])
    return Case(case.rows, case.columns, options)
