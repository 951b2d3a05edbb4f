"""Pairs that no assignment may contain."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

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
