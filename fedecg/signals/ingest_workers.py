"""Files to rows in several processes, in the order of the files; a file that ends or hangs its process is refused.

In:  `Item`s, and the function that makes rows of one. Out: (number of the item, row), then (number, None) at its end.
Called by `ingest`. Processes come from a server that has loaded the readers once ("forkserver"), so neither threads nor
locks of the caller come along. When the caller is killed, their pipes close and they end. What goes through them is
JSON and counts, no pickle: the other end reads files that anybody may have made.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from fedecg.errors import RunError
from fedecg.signals.ingest_sources import Item
from fedecg.signals.store_writer import Row, refused

__all__ = ["Events", "in_processes", "in_turn"]

Events = Iterator[tuple[int, Row | None]]
Work = Callable[[Item], Iterator[Row]]

AHEAD = 16  # files that a process is given at once: it never waits for the next
WINDOW = 64  # files a process beyond the first unfinished one: their rows wait in memory, 25 kB each
MOST_WAITING = 2048  # rows of a process that wait; beyond it the process does
LIMIT_S = 120.0  # of one ECG; the slowest reader takes a second for a large one
TRIES = 2  # a process may have been killed for want of memory, and not by its file
LOOK_EVERY_S = 0.5
READY = b"ready"


def in_turn(items: Sequence[Item], work: Work, first: int = 0) -> Events:
    """One file after the other, in this process."""
    for number in range(first, len(items)):
        for row in work(items[number]):
            yield number, row
        yield number, None


def in_processes(
    items: Sequence[Item], work: Work, jobs: int, first: int = 0, limit_s: float = LIMIT_S
) -> Events:
    """The same events as `in_turn`, made by `jobs` processes.

    Args:
        items: all files. work: rows of one, a function that another process can import. first: number to begin with.
        limit_s: longest wait for the next row of a file; then its process is ended and the file refused (FECG-297).

    Raises:
        RunError: FECG-612, processes end before they begin to work.
    """
    crew = _Crew(items, work, jobs, first, limit_s)
    try:
        yield from crew.events()
    finally:
        crew.dismiss()


@dataclass(eq=False)
class _Hand:
    """One process; `given` are the files that it has not finished, the first is the one it reads."""

    process: BaseProcess
    pipe: Connection
    ready: bool = False
    given: deque[int] = field(default_factory=deque)
    heard_s: float = field(default_factory=time.monotonic)


class _Crew:
    """Gives files out, keeps rows until their turn, replaces processes that end."""

    def __init__(self, items: Sequence[Item], work: Work, jobs: int, first: int, limit_s: float) -> None:
        self.items, self.work, self.limit_s = items, work, limit_s
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["fedecg.signals.ingest"])
        self.head = self.next = first
        self.gone = 0  # rows of the head that were handed over
        self.again: list[int] = []  # files of a process that ended
        self.tries: dict[int, int] = {}
        self.rows: dict[int, deque[Row]] = {}
        self.ended: set[int] = set()
        self.hands = [self._hire() for _ in range(min(jobs, max(1, len(items) - first)))]

    def events(self) -> Events:
        while self.head < len(self.items):
            waiting = self.rows.get(self.head)
            while waiting:
                self.gone += 1
                yield self.head, waiting.popleft()
            if self.head in self.ended:
                self.ended.remove(self.head)
                self.rows.pop(self.head, None)
                yield self.head, None
                self.head, self.gone = self.head + 1, 0
                continue
            for hand in self.hands:
                self._give(hand)
            self._listen()

    def dismiss(self) -> None:
        for hand in self.hands:
            hand.pipe.close()
            hand.process.kill()
        for hand in self.hands:
            hand.process.join()

    def _hire(self) -> _Hand:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(theirs, self.work), daemon=True)
        process.start()
        theirs.close()
        return _Hand(process, ours)

    def _give(self, hand: _Hand) -> None:
        last = min(len(self.items), self.head + WINDOW * len(self.hands))
        while len(hand.given) < AHEAD and (self.again or self.next < last):
            if self.again:
                number = self.again.pop(0)
            else:
                number, self.next = self.next, self.next + 1
            if not hand.given:
                hand.heard_s = time.monotonic()
            hand.given.append(number)
            try:
                hand.pipe.send_bytes(_item_bytes(number, self.items[number]))
            except OSError:  # it has ended, as will be noticed when it is listened to
                return

    def _listen(self) -> None:
        now = time.monotonic()
        heard = {hand.pipe: hand for hand in self.hands if self._has_room(hand)}
        for hand in self.hands:
            if hand.pipe not in heard or not hand.given:
                hand.heard_s = now
        for pipe in wait(list(heard), LOOK_EVERY_S):
            hand = heard[pipe]  # type: ignore[index]
            try:
                self._take(hand, hand.pipe.recv_bytes())
            except (EOFError, OSError):
                self._replace(hand, hung=False)
        for hand in list(self.hands):
            if hand.ready and hand.given and time.monotonic() - hand.heard_s > self.limit_s:
                self._replace(hand, hung=True)

    def _has_room(self, hand: _Hand) -> bool:
        """Whoever reads the first unfinished file is always heard, so there is no standstill."""
        if self.head in hand.given:
            return True
        return sum(len(self.rows.get(number, ())) for number in hand.given) < MOST_WAITING

    def _take(self, hand: _Hand, message: bytes) -> None:
        hand.heard_s = time.monotonic()
        if message == READY:
            hand.ready = True
            return
        number, row = _row_of(message)
        if row is not None:
            self.rows.setdefault(number, deque()).append(row)
            return
        hand.given.remove(number)
        self.ended.add(number)

    def _replace(self, hand: _Hand, *, hung: bool) -> None:
        hand.process.kill()
        hand.process.join()
        hand.pipe.close()
        if not hand.ready:
            raise RunError(
                "FECG-612",
                "processes that read ECGs",
                found="one that ended before it began",
                expected="processes that start",
                fix="Free memory, or try --jobs 1.",
            )
        if hand.given:
            self._blame(hand.given.popleft(), hung=hung)
        self.again = sorted([*self.again, *hand.given])
        for number in hand.given:
            self.rows.pop(number, None)
        self.hands[self.hands.index(hand)] = self._hire()

    def _blame(self, number: int, *, hung: bool) -> None:
        """The file that was being read: once more from its start, unless rows of it are gone already, or refused."""
        self.tries[number] = self.tries.get(number, 0) + 1
        if not hung and self.tries[number] < TRIES and not (number == self.head and self.gone):
            self.rows.pop(number, None)
            self.again = [number, *self.again]
            return
        item = self.items[number]
        row = refused("FECG-297")
        row.entry.update(source=item.source)
        self.rows.setdefault(number, deque()).append(row)
        self.ended.add(number)


def _serve(pipe: Connection, work: Work) -> None:
    """What a process does until its pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the caller ends the others
    try:
        pipe.send_bytes(READY)
        while True:
            number, item = _item_of(pipe.recv_bytes())
            for row in work(item):
                pipe.send_bytes(_row_bytes(number, row))
            pipe.send_bytes(_row_bytes(number, None))
    except (EOFError, OSError):
        return


def _item_bytes(number: int, item: Item) -> bytes:
    return json.dumps([number, item._asdict() | {"path": str(item.path)}]).encode()


def _item_of(message: bytes) -> tuple[int, Item]:
    number, fields = json.loads(message)
    parts = fields["parts"] if fields["parts"] is None else tuple(fields["parts"])
    return number, Item(**fields | {"path": Path(fields["path"]), "parts": parts})


def _row_bytes(number: int, row: Row | None) -> bytes:
    """A line of JSON, then the counts; without a row the file has ended."""
    shape = None if row is None or row.counts is None else row.counts.shape
    head = json.dumps([number, None if row is None else row.entry, shape], default=_plain).encode()
    return head + b"\n" + (row.counts.tobytes() if row is not None and row.counts is not None else b"")


def _row_of(message: bytes) -> tuple[int, Row | None]:
    head, _, counts = message.partition(b"\n")
    number, entry, shape = json.loads(head)
    if entry is None:
        return number, None
    return number, Row(None if shape is None else np.frombuffer(counts, dtype=np.int16).reshape(shape), entry)


def _plain(value: np.generic) -> object:
    """numpy's numbers as Python's."""
    return value.item()
