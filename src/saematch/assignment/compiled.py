"""The decorator of this package's compiled loops, and splitting one over rows among threads.

numba compiles them at first use and keeps the result next to the source or in the user's cache folder,
so that only the first run on a machine waits for it.  They release Python's lock and run on one
thread each: whoever calls them splits the work (`in_parallel`).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import torch

MINIMA = frozenset({"nnan", "nsz"})
"""What a loop may assume that takes minima: no NaN, and 0 = -0.  Every sum keeps its rounding: a loop that is
compiled into another, or read from numba's cache, must give the same bits wherever it stands."""
SUMS = MINIMA | {"contract", "reassoc"}
"""The same where the order of a sum does not matter either; for loops that no other compiled loop calls."""


def compiled(assume: frozenset[str] = frozenset()) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function of arrays and numbers; `assume`: `MINIMA` or `SUMS`.

    Put `@typing.no_type_check` beneath it: the tests' shape checks wrap every other function.
    """
    flags: Any = set(assume) or False

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, fastmath=flags)(function)
        except RuntimeError:
            # Nowhere to keep it: neither the package's folder nor the user's cache can be written.
            return numba.njit(nogil=True, fastmath=flags)(function)

    return decorate


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="saematch")


def in_parallel(work: Callable[[int, int], None], count: int, least: int = 1) -> None:
    """Call `work(start, stop)` for parts of `range(count)`, as many as torch uses threads.

    Each part has at least `least` items; a single part is worked on here.
    """
    threads = torch.get_num_threads()
    parts = max(1, min(threads, count // max(1, least)))
    if parts == 1:
        work(0, count)
        return
    edges = [count * part // parts for part in range(parts + 1)]
    list(_pool(threads).map(work, edges[:-1], edges[1:]))
