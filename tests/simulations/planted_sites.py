"""Sites whose patients are marked, and everything that can be heard of them outside; plain functions, no pytest.

Every row of a site's table gets an id, a name, two dates and a report that stand nowhere else in the world; the table
and the signal store lie under names that do not either. Then real studies run, and what travelled, was logged, printed
or written is searched for the marks, also in other encodings, and hashed.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_to_proto

from fedecg.config import StudySettings
from fedecg.errors import FedecgError
from fedecg.federation.messages import document_of
from fedecg.progress import Progress
from fedecg_client.app import app as client_app
from fedecg_server.run_folder import RunFolder
from fedecg_server.study import run_study
from fedecg_simulations.grid import FIRST_NODE, InProcessGrid

PATIENT, NAME, REPORT, PLACE = "qzpatientennummer", "Zebedeequill", "palpitatiomala", "qzkrankenhaus"
BORN, SEEN = "1907-11-23", "20.03.1911"
MARKS = (PATIENT, NAME, REPORT, PLACE, BORN, SEEN)
STUDY = "planted"
TABLE, STORE = f"{PLACE}-kohorte.csv", f"{PLACE}-signale"
QUERIES = ("join", "keys", "unmask", "census", "survey", "assess", "baselines", "explain")

Around = Callable[[str, str], AbstractContextManager[None]]  # site, kind of task -> what happens meanwhile


def plant(folder: Path) -> None:
    """Mark the patients of a site's folder; a real site's policy, so that it keeps replies and records."""
    table = folder / "cohort.csv"
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    for number, row in enumerate(rows):
        marked = {"patient": f"{PATIENT}{folder.name}{number:05d}", "name": NAME, "born": BORN, "seen": SEEN}
        row.update(marked, report=f"{REPORT} bei {NAME}")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    table.unlink()
    (folder / TABLE).write_text(text.getvalue())
    site = (folder / "site.toml").read_text().splitlines()
    store = next(line for line in site if line.startswith("store")).split('"')[1]
    (folder / STORE).symlink_to((folder / store).resolve())
    privacy = "\n".join(site[site.index("[privacy]") :])
    (folder / "site.toml").write_text(
        f'name = "{folder.name}"\nstore = "{STORE}"\ncohort = "{TABLE}"\n\n'
        f'[policy]\nstudies = ["{STUDY}"]\nconsent = "first"\n\n{privacy}\n'
    )


@dataclass
class Heard:
    """What was outside of the sites' own tables.

    Attributes:
        messages: bytes of each, both ways. documents: texts of each reply, by site and kind.
        said: logs, with tracebacks if there are any, warnings, and what was printed.
        failed: codes of replies that were failures.
        ended: the code with which the study ended, if it did not complete.
    """

    messages: list[bytes] = field(default_factory=list)
    documents: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    said: io.StringIO = field(default_factory=io.StringIO)
    failed: list[str] = field(default_factory=list)
    ended: str = ""

    def listen(self, around: Around | None = None) -> ClientApp:
        """The real ClientApp; every message and every reply is kept as the bytes that Flower sends."""
        app = ClientApp()

        def handle(message: Message, context: Context) -> Message:
            site = load_name(context)
            self.messages.append(as_bytes(message.content) + repr(message.metadata).encode())
            meanwhile = around(site, message.metadata.message_type) if around else nullcontext()
            with meanwhile:
                reply = client_app(message, context)
            self.messages.append(as_bytes(reply.content) + repr(reply.metadata).encode())
            document = document_of(reply.content)
            self.documents.append((site, message.metadata.message_type, document))
            self.failed += [document["failed"]] if "failed" in document else []
            return reply

        app.train()(handle)
        app.evaluate()(handle)
        for action in QUERIES:
            app.query(action)(handle)
        return app

    @contextmanager
    def recording(self) -> Iterator[None]:
        """All loggers at DEBUG, stdout and stderr."""
        root, handler = logging.getLogger(), logging.StreamHandler(self.said)
        level, out, err = root.level, sys.stdout, sys.stderr
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        for loud in ("matplotlib", "PIL", "fontTools"):
            logging.getLogger(loud).setLevel(logging.WARNING)
        sys.stdout, sys.stderr = Both(out, self.said), Both(err, self.said)  # type: ignore[assignment]
        try:
            yield
        finally:
            sys.stdout, sys.stderr = out, err
            root.removeHandler(handler)
            root.setLevel(level)


class Both(io.TextIOBase):
    """A stream that is kept, too."""

    def __init__(self, stream: Any, kept: io.StringIO) -> None:
        self._stream, self._kept = stream, kept

    def write(self, text: str) -> int:
        self._kept.write(text)
        return int(self._stream.write(text))

    def flush(self) -> None:
        self._stream.flush()


def load_name(context: Context) -> str:
    return Path(str(context.node_config["site-folder"])).name


def as_bytes(content: RecordDict) -> bytes:
    return recorddict_to_proto(content).SerializeToString()


def run_planted(settings: StudySettings, sites: Path, out: Path, around: Around | None = None) -> Heard:
    """A whole study over planted sites; it may end with a code."""
    heard = Heard()
    folders = sorted(file.parent for file in sites.glob("*/site.toml"))
    nodes = {number: {"site-folder": str(folder)} for number, folder in enumerate(folders, start=FIRST_NODE)}
    with heard.recording():
        try:
            grid = InProcessGrid(heard.listen(around), nodes)
            run_study(grid, settings, RunFolder(out), Progress())
        except FedecgError as error:
            heard.ended = error.code
            heard.said.write(str(error))
    return heard


def found(heard: Heard, *roots: Path) -> list[str]:
    """Where a mark is outside of the sites' own tables; the site's own settings name its files."""
    places = {f"message {number}": content for number, content in enumerate(heard.messages)}
    places["what was said"] = heard.said.getvalue().encode()
    for root in roots:
        for file in root.rglob("*"):
            if file.is_file() and not file.is_symlink() and file.name not in (TABLE, "site.toml"):
                places[str(file.relative_to(root))] = file.read_bytes()
    forms = {form for mark in MARKS for form in written_forms(mark)}
    hashes = hashed_ids(roots)
    return [
        place
        for place, content in places.items()
        if any(form in content for form in forms) or any_of(hashes, content)
    ]


def written_forms(mark: str) -> set[bytes]:
    """A mark in the encodings in which it may hide: Unicode, hexadecimal digits, base64 from any of three places."""
    plain = mark.encode()
    forms = {plain, plain.lower(), mark.encode("utf-16-le"), plain.hex().encode(), plain[::-1]}
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + plain)
        whole = 4 * ((before + len(plain)) // 3)  # what follows depends on the next byte, too
        forms.add(coded[4 if before else 0 : whole])
    return forms


def hashed_ids(roots: tuple[Path, ...]) -> set[bytes]:
    """Plain hashes of every patient's id, 16 bytes of each, raw and in hexadecimal digits: ids are guessed easily."""
    ids = [
        row["patient"].encode()
        for root in roots
        for table in root.rglob(TABLE)
        for row in csv.DictReader(io.StringIO(table.read_text(errors="replace")))
    ]
    digests = [
        hashlib.new(kind, one).digest()[:16] for one in ids for kind in ("md5", "sha1", "sha256", "blake2b")
    ]
    return {*digests, *(digest.hex().encode() for digest in digests)}


def any_of(hashes: set[bytes], content: bytes) -> bool:
    """Whether a hash begins somewhere in it; long arrays of weights are looked at for the marks alone."""
    if len(content) > 200_000 or not hashes:
        return False
    windows = {content[at : at + 16] for at in range(len(content) - 15)}
    return any(one[:16] in windows for one in hashes)
