"""The decorator of this package's compiled loops.

numba compiles them at first use and keeps the result beside the source or in the user's cache folder,
so that only the first run on a machine waits for it.  They release Python's lock and run on one
thread each: whoever calls them splits the work (threads.py).
"""

from collections.abc import Callable
from typing import Any

import numba

FAST = frozenset({"nnan", "nsz", "arcp", "contract", "reassoc"})
"""What a loop may assume where the order of a sum or a minimum does not matter; infinities stay."""


def compiled(fast: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function of arrays and numbers; `fast` lets its sums be reordered.

    Put `@typing.no_type_check` beneath it: the tests' shape checks wrap every other function.
    """
    flags: Any = set(FAST) if fast else False

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, fastmath=flags)(function)
        except RuntimeError:
            # Nowhere to keep it: neither the package's folder nor the user's cache can be written.
            return numba.njit(nogil=True, fastmath=flags)(function)

    return decorate
