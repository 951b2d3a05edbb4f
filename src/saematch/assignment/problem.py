"""What is to be solved: costs, unmatched cost, forbidden pairs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from saematch.assignment.costs import SquaredDistances
from saematch.errors import UsageError


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
        try:
            pairs = np.asarray([] if pairs is None else pairs)
        except ValueError:
            raise UsageError(
                "expected forbidden pairs as integers [k, 2], got a ragged list"
            ) from None
        if not pairs.size:
            return cls(np.empty(0, dtype=np.int64), n, m)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
            raise UsageError(
                f"expected forbidden pairs as integers [k, 2], got shape {list(pairs.shape)} of "
                f"{pairs.dtype}"
            )
        i, j = pairs.astype(np.int64).T
        outside = (i < 0) | (i >= n) | (j < 0) | (j >= m)
        if outside.any():
            first = int(outside.argmax())
            raise UsageError(
                f"expected forbidden pairs of rows below {n} and columns below {m}, got "
                f"({i[first]}, {j[first]})"
            )
        return cls(np.unique(i * m + j), n, m)

    def __len__(self) -> int:
        return len(self.codes)

    def contains(self, i: Int64[np.ndarray, " k"], j: np.ndarray) -> Bool[np.ndarray, " k"]:
        """Which pairs are forbidden."""
        if not len(self.codes):
            return np.zeros(len(i), dtype=bool)
        codes = i.astype(np.int64) * self.m + j
        place = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return self.codes[place] == codes

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
    """

    costs: SquaredDistances
    row_prices: Float64[np.ndarray, " n"]
    column_prices: Float64[np.ndarray, " m"]
    forbidden: Forbidden

    @classmethod
    def of(
        cls,
        costs: SquaredDistances,
        row_prices: np.ndarray | None = None,
        column_prices: np.ndarray | None = None,
        forbidden: Forbidden | None = None,
    ) -> "Problem":
        """Prices are one number, one a row (column), or None: every row in a pair, and columns left
        over for nothing.  Raises UsageError for prices of another shape, NaN or minus infinity."""
        rows = _prices(row_prices, costs.n, np.inf, "row_prices")
        none_left = costs.n == costs.m and np.isinf(rows).all()
        columns = _prices(column_prices, costs.m, np.inf if none_left else 0.0, "column_prices")
        if not none_left and np.isinf(columns).any():
            raise UsageError(
                "expected finite column_prices where columns can be left over, got an infinite one"
            )
        return cls(costs, rows, columns, forbidden or Forbidden.of(None, costs.n, costs.m))

    @property
    def spare(self) -> int:
        """How many columns stay free where every row is in a pair and that costs nothing; else 0."""
        every_row = np.isinf(self.row_prices).all() and (self.column_prices == 0).all()
        return self.costs.m - self.costs.n if every_row else 0

    def scaled(self, exponent: int) -> "Problem":
        """The same problem with factors times 2^exponent."""
        return Problem(
            self.costs.scaled(exponent),
            np.ldexp(self.row_prices, 2 * exponent),
            np.ldexp(self.column_prices, 2 * exponent),
            self.forbidden,
        )


def _prices(
    given: np.ndarray | None, count: int, usual: float, name: str
) -> Float64[np.ndarray, " count"]:
    if given is None:
        return np.full(count, usual)
    prices = np.asarray(given, dtype=np.float64)
    if prices.shape not in ((), (count,)):
        raise UsageError(f"expected one of {name} or {count}, got shape {list(prices.shape)}")
    if np.isnan(prices).any() or np.isneginf(prices).any():
        raise UsageError(f"expected {name} that are numbers or +inf, got NaN or -inf")
    return np.broadcast_to(prices, (count,)).copy()
