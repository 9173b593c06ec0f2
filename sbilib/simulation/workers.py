"""Worker processes that never outlive the program that started them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from sbilib.errors import SbilibError

__all__ = ["worker_pool"]


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes that ends at once if this process is interrupted, fails or is killed.

    Args:
        workers: how many processes.

    Yields:
        the pool, to which functions of modules can be submitted.

    Raises:
        SbilibError: if a worker process dies.
    """
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield pool
        pool.shutdown()
    except BrokenProcessPool as error:
        raise SbilibError(
            "a worker process died, perhaps for want of memory; what is finished is kept, so do the same "
            'again with fewer workers (in a script, call this below `if __name__ == "__main__":`)'
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()


def _start_worker() -> None:
    """End with the parent: a worker whose parent was killed would go on and wait for it forever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
