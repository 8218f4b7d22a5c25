"""One file over HTTP: from where an earlier try ended, again after growing pauses, compared with its checksum.

In:  an address, a place, a digest. Out: the file, which appears only when it is whole and right; until then FILE.part
     lies there, which the next try, or the next run, goes on from. Called by `fetching`, several at a time.

A server that ignores Range sends the file from its start, and so it is taken; one that sends other bytes than the
digest says is asked again from the start. Every wait is bounded: silence, pauses and tries.
"""

from __future__ import annotations

import http.client
import random
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from threading import Event
from time import monotonic, time

from fedecg_simulations.published.checksums import PublishedFile, digest_of

__all__ = ["Patience", "StoppedError", "TransferError", "download"]

PIECE_BYTES = 1 << 17
PROGRESS_BYTES = (
    1 << 20
)  # a try that brought so much is no failure: a long file over a bad line must end some time
SLOWEST_BYTES_A_S = 100  # over as long as silence is borne: a trickle is no answer
PASSING = {408, 425, 429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


@dataclass(frozen=True)
class Patience:
    """How long a file is waited for.

    Attributes:
        tries: in a row without progress. first_s, longest_s: the pause after the first failure, which doubles, and what
            it, or a server's Retry-After, is cut to. silence_s: without a byte, then a try has failed.
    """

    tries: int = 6
    first_s: float = 1.0
    longest_s: float = 60.0
    silence_s: float = 30.0


class TransferError(Exception):
    """A file that could not be had. `kind`: "missing" (404, 410), "denied" (401, 403), "wrong" (other bytes than the
    digest says), "broken" (no answer, or none that was whole)."""

    def __init__(self, kind: str, found: str) -> None:
        super().__init__(found)
        self.kind, self.found = kind, found


class StoppedError(Exception):
    """The others have ended."""


class _PassingError(Exception):
    """What may be otherwise on the next try; `pause_s` is what the server asks for."""

    def __init__(self, kind: str, found: str, pause_s: float = 0.0) -> None:
        super().__init__(found)
        self.kind, self.found, self.pause_s = kind, found, pause_s


def download(
    url: str, file: PublishedFile, target: Path, patience: Patience, stop: Event, told: Callable[[int], None]
) -> None:
    """Bring a file to its place.

    Args:
        url: http or https.
        file: its digest ("": none is known, and what came whole is taken), and its size if that is known.
        target: where it goes; folders above it are made.
        patience: how often and how long.
        stop: set when everything is to end.
        told: called with the bytes of each piece that came.

    Raises:
        TransferError: it could not be had. StoppedError: `stop` was set. OSError: it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    failures = 0
    while True:
        before = _size(part)
        try:
            _go_on(url, file, part, patience.silence_s, stop, told)
            if not file.digest or digest_of(part, file.algorithm) == file.digest:
                part.replace(target)
                return
            part.unlink()
            fault = _PassingError("wrong", "other bytes than the published checksum says")
        except _PassingError as passing:
            fault = passing
        came = _size(part) - before
        failures = 0 if came >= PROGRESS_BYTES else failures + 1
        if failures >= patience.tries:
            raise TransferError(fault.kind, fault.found) from None
        if stop.wait(_pause_s(patience, failures, fault.pause_s)):
            raise StoppedError


def _pause_s(patience: Patience, failures: int, asked_s: float) -> float:
    growing = (
        patience.first_s * 2 ** max(failures - 1, 0) * random.uniform(0.5, 1.0)
    )  # not all at the same moment
    return min(max(float(growing), asked_s), patience.longest_s)


def _go_on(
    url: str, file: PublishedFile, part: Path, silence_s: float, stop: Event, told: Callable[[int], None]
) -> None:
    """One try: the rest of the part, or the whole."""
    start = _size(part)
    if file.size is not None and start == file.size > 0:
        return
    try:
        with urllib.request.urlopen(_request(url, start), timeout=silence_s) as answer:
            fresh = _is_from_the_start(answer, start, part)
            _receive(answer, part, "wb" if fresh else "ab", silence_s, stop, told)
    except urllib.error.HTTPError as error:
        with error:
            _judge(error)
    except (http.client.HTTPException, OSError) as error:  # URLError and timeouts are OSErrors
        if isinstance(error, OSError) and error.filename is not None:
            raise  # of the disk, not of the line
        raise _PassingError("broken", _in_words(error)) from None


def _request(url: str, start: int) -> urllib.request.Request:
    headers = {"User-Agent": f"fedecg/{version('fedecg')}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    return urllib.request.Request(url, headers=headers)


def _is_from_the_start(answer: http.client.HTTPResponse, start: int, part: Path) -> bool:
    """Whether the answer is the whole file; not, if it is the rest that was asked for. Another rest: begin anew."""
    if answer.status == 200:
        return True
    said = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if answer.status == 206 and start and said and int(said[1]) == start:
        return False
    part.unlink(missing_ok=True)
    raise _PassingError("broken", f"an answer of status {answer.status} that is not what was asked for")


def _receive(
    answer: http.client.HTTPResponse,
    part: Path,
    mode: str,
    silence_s: float,
    stop: Event,
    told: Callable[[int], None],
) -> None:
    expected = answer.length  # what is left of the body, as the head says; None: it does not say
    came, since, before = 0, monotonic(), 0
    with part.open(mode) as file:
        while expected is None or came < expected:
            piece = answer.read1(PIECE_BYTES)  # what has come: to wait for a whole piece could take days
            if not piece:
                break
            _write(file.write, piece, part)
            came += len(piece)
            told(len(piece))
            if stop.is_set():
                raise StoppedError
            if monotonic() - since > silence_s:
                if came - before < SLOWEST_BYTES_A_S * silence_s:
                    raise _PassingError("broken", f"less than {SLOWEST_BYTES_A_S} bytes a second")
                since, before = monotonic(), came
    if expected is not None and came < expected:
        raise _PassingError("broken", "a connection that ended in the middle of a file")


def _write(write: Callable[[bytes], int], piece: bytes, part: Path) -> None:
    try:
        write(piece)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(part)) from None  # a full disk is no fault of the line


def _judge(error: urllib.error.HTTPError) -> None:
    """What a refusal means."""
    if error.code == 416:  # the part is as long as the file, or longer: its digest says which
        return
    if error.code in (404, 410):
        raise TransferError("missing", f"status {error.code}") from None
    if error.code in (401, 403):
        raise TransferError("denied", f"status {error.code}") from None
    if error.code in PASSING:
        raise _PassingError(
            "broken", f"status {error.code}", _retry_after_s(error.headers.get("Retry-After", ""))
        )
    raise TransferError("broken", f"status {error.code}") from None


def _retry_after_s(text: str) -> float:
    """Seconds, from a number of seconds or a date."""
    if text.strip().isdigit():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _in_words(error: Exception) -> str:
    """What went wrong on the line, without an address."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return "no byte for too long"
    if isinstance(reason, http.client.HTTPException):
        return "an answer that is no HTTP, or that ended too early"
    if isinstance(reason, OSError) and reason.errno:
        return reason.strerror.lower() if reason.strerror else "no connection"
    return "no connection"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
