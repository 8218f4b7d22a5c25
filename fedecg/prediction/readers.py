"""Threads that read ahead and that no hung file keeps a command from ending.

In:  functions without arguments. Out: `Future`s of what they return. Called by `files`.

The threads of a `ThreadPoolExecutor` are waited for at the interpreter's end, so that one that hangs in open(), on a
network folder that has gone, would make Ctrl-C useless. These are daemons: an interruption waits for them a moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["Readers"]

# After an error or an interruption: long enough for the record at hand, so that the interpreter does not end under a
# thread that computes; a thread that hangs is left behind.
PATIENCE_S = 0.5

Result = TypeVar("Result")


class Readers:
    """A pool of daemon threads; on leaving it, what has not begun is dropped.

    Args:
        number: of threads.
    """

    def __init__(self, number: int) -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._ended = False
        self._threads = [
            Thread(target=self._work, name=f"fedecg-read-{place}", daemon=True) for place in range(number)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, read: Callable[[], Result]) -> Future[Result]:
        """Have one of the threads call `read`."""
        future: Future[Result] = Future()
        self._tasks.put((future, read))
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        for _ in self._threads:
            self._tasks.put(None)
        until = time.monotonic() + PATIENCE_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, read = task
            if self._ended:
                future.cancel()
                continue
            try:
                future.set_result(read())
            except BaseException as error:  # whoever waits for the result gets it
                future.set_exception(error)
