"""Split a compiled loop over rows among threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


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
    started = [_pool(threads).submit(work, edges[part], edges[part + 1]) for part in range(parts)]
    for future in started:
        future.result()
