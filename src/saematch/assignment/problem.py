"""What is to be solved: costs, unmatched cost, forbidden pairs."""

import reprlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from saematch.assignment.costs import SquaredDistances
from saematch.errors import UsageError

Prices = float | np.ndarray


@dataclass(frozen=True, eq=False)
class Forbidden:
    """A set of pairs of an n × m problem."""

    codes: Int64[np.ndarray, " k"]
    """`i · m + j`, ascending."""
    n: int
    m: int

    @classmethod
    def of(cls, pairs: np.ndarray | None, n: int, m: int) -> "Forbidden":
        """From pairs [k, 2] of a row and a column; raises UsageError if there is none such."""
        given = pairs
        try:
            pairs = np.asarray([] if given is None else given)
            if pairs.size and (pairs.shape[1:] != (2,) or pairs.dtype.kind not in "iu"):
                raise ValueError
        except ValueError:
            raise UsageError(
                f"expected forbidden pairs as integers [k, 2], got {reprlib.repr(given)}"
            ) from None
        if not pairs.size:
            return cls(np.empty(0, dtype=np.int64), n, m)
        i, j = pairs.astype(np.int64).T
        outside = (i < 0) | (i >= n) | (j < 0) | (j >= m)
        if outside.any():
            first = int(outside.argmax())
            raise UsageError(
                f"expected forbidden pairs of rows below {n} and columns below {m}, got "
                f"({i[first]}, {j[first]})"
            )
        return cls(np.unique(i * m + j), n, m)

    def contains(self, i: Int64[np.ndarray, " k"], j: np.ndarray) -> Bool[np.ndarray, " k"]:
        """Which pairs are forbidden."""
        return np.isin(i * self.m + j, self.codes)

    @property
    def most_in_a_row(self) -> int:
        """The greatest number of forbidden columns of one row."""
        return int(np.bincount(self.codes // self.m).max()) if len(self.codes) else 0

    @property
    def transposed(self) -> "Forbidden":
        i, j = self.codes // self.m, self.codes % self.m
        return Forbidden(np.sort(j * self.n + i), self.m, self.n)


@dataclass(frozen=True, eq=False)
class Problem:
    """Least Σ c_ij over pairs + Σ prices of the rows and columns that are in none.

    An infinite price: always in a pair.  The dual: greatest Σ u_i + Σ v_j with u_i + v_j ≤ c_ij for
    every pair that is not forbidden, u_i ≤ row_prices[i], v_j ≤ column_prices[j].

    Such numbers are called feasible, and c_ij − u_i − v_j the reduced cost of a pair.  Their sum is a proof:
    every assignment pays for each row and each column once, in a pair or as a price, and each payment is
    at least the duals of what it pays for, so that no assignment costs less than Σ u + Σ v.  One that
    costs just that is optimal; its pairs then have reduced cost 0 (they are tight).  And whoever takes a
    pair of reduced cost r pays at least r more than the bound: that is where margins come from.
    """

    costs: SquaredDistances
    row_prices: Float64[np.ndarray, " n"]
    column_prices: Float64[np.ndarray, " m"]
    forbidden: Forbidden

    @classmethod
    def of(
        cls,
        costs: SquaredDistances,
        row_prices: Prices | None = None,
        column_prices: Prices | None = None,
        forbidden: np.ndarray | None = None,
    ) -> "Problem":
        """Raises UsageError for prices and forbidden pairs that make no problem."""
        prices = prices_of(row_prices, column_prices, costs.n, costs.m)
        return cls(costs, *prices, Forbidden.of(forbidden, costs.n, costs.m))

    @property
    def spare(self) -> int:
        """How many columns stay free where every row is in a pair and that costs nothing; else 0."""
        every_row = np.isinf(self.row_prices).all() and (self.column_prices == 0).all()
        return self.costs.m - self.costs.n if every_row else 0


def prices_of(
    row_prices: Prices | None, column_prices: Prices | None, n: int, m: int
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " m"]]:
    """Prices are one number, one a row (column), or None: every row in a pair, and columns left
    over for nothing.  Raises UsageError for prices of another shape, NaN or minus infinity."""
    rows = _prices(row_prices, n, np.inf, "row_prices")
    none_left = n == m and np.isinf(rows).all()
    columns = _prices(column_prices, m, np.inf if none_left else 0.0, "column_prices")
    if not none_left and np.isinf(columns).any():
        raise UsageError(
            "expected finite column_prices where columns can be left over, got an infinite one"
        )
    return rows, columns


def _prices(
    given: Prices | None, count: int, usual: float, name: str
) -> Float64[np.ndarray, " count"]:
    prices = as_numbers(usual if given is None else given)
    if prices.shape not in ((), (count,)):
        raise UsageError(f"expected one of {name} or {count}, got shape {list(prices.shape)}")
    if np.isnan(prices).any() or np.isneginf(prices).any():
        raise UsageError(f"expected {name} that are numbers or +inf, got NaN or -inf")
    return np.broadcast_to(prices, (count,)).copy()


def as_numbers(values: object) -> np.ndarray:
    """Prices or duals as an array of float64; raises UsageError for what are no real numbers."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "biuf" or isinstance(values, np.ma.MaskedArray):
            raise TypeError
        return given.astype(np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"expected numbers as prices and duals, got {values!r}") from None
