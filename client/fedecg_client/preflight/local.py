"""What can be checked without a connection: settings, key, authority, clock, versions, room, policy.

In:  a site's folder. Out: one `Check` each. Called by preflight, by `fedecg-client start` (the quick ones) and doctor.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fedecg.config import PolicySettings
from fedecg.federation.identity import certificate_fingerprint, public_key_of
from fedecg.files import in_words
from fedecg_client.folder import SiteFolder
from fedecg_client.keys import authority_of, load_key, others_can_read, pair_fits
from fedecg_client.preflight.check import Check, failed, passed

__all__ = ["authority", "disk", "folder", "gpu", "key", "local_clock", "memory", "policy", "versions"]

FLOWER, OLDEST_PYTHON = "1.39.", (3, 11)
ANY = "*"
GIB = 1 << 30
# Measured: the agent 0.1 GiB, a worker that trains the base network in batches of 64 0.8 GiB; then come its data.
LEAST_MEMORY_BYTES = int(1.5 * GIB)
# Four kept replies and a checkpoint (weights, two moments): 0.03 GiB for the base network; logs; room to write anew.
LEAST_DISK_BYTES = int(0.5 * GIB)
CLOCK_SLACK = timedelta(minutes=5)


def folder(site: SiteFolder) -> Check:
    """Can the state be written, and does nobody else read it?"""
    probe = site.state / f".preflight.{os.getpid()}"
    try:
        site.state.mkdir(mode=0o700, exist_ok=True)
        with probe.open("wb") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return failed(
            "folder", "machine", "FECG-601", f"state/ that cannot be written ({in_words(error)})",
            "Free space on that disk, or give the site's folder to the user that runs fedecg.",
        )  # fmt: skip
    finally:
        probe.unlink(missing_ok=True) if site.state.is_dir() else None
    if others_can_read(site.state):
        return failed("folder", "settings", "FECG-651", "state/ that others can read", "chmod 700 state")
    return passed("folder", "machine", "state/ can be written, by its owner alone")


def key(site: SiteFolder) -> Check:
    """The site's key: of the right kind, for its owner alone, and node.pub belongs to it."""
    private = load_key(site.key)
    if others_can_read(site.key):
        return failed(
            "key", "settings", "FECG-651", "a private key that others than its owner can read",
            f"chmod 600 {site.key.name}. If others may have copied it: fedecg-client renew-key.",
        )  # fmt: skip
    if not pair_fits(site.key):
        return failed(
            "key", "settings", "FECG-657", "no node.pub that belongs to node.key",
            "ssh-keygen -y -f node.key > node.pub",
        )  # fmt: skip
    fingerprint = public_key_of(private).fingerprint
    return passed("key", "settings", f"EC P-384, {fingerprint}", fingerprint=fingerprint)


def authority(site: SiteFolder) -> Check:
    """The coordinator's authority: one certificate, in force."""
    certificate = authority_of(site.ca)
    fingerprint, now = certificate_fingerprint(certificate), datetime.now(UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins <= now <= ends:
        return failed(
            "ca", "settings", "FECG-643", f"ca.crt that {'has expired' if now > ends else 'is not valid yet'}",
            "Check this machine's clock. If it is right, ask the coordinator for its ca.crt.",
        )  # fmt: skip
    return passed(
        "ca", "settings", f"until {ends:%Y-%m-%d}, {fingerprint}", fingerprint=fingerprint,
        expires=f"{ends:%Y-%m-%dT%H:%M:%SZ}",
    )  # fmt: skip


def local_clock(site: SiteFolder) -> Check:
    """The clock against what this machine wrote itself; the coordinator's is asked for its own by another check."""
    now = time.time()
    newest = max((file.stat().st_mtime for file in _own_files(site)), default=now)
    if newest > now + CLOCK_SLACK.total_seconds():
        return failed(
            "clock-here", "machine", "FECG-652", "files of this site from the future: the clock went back",
            "Set this machine's clock (NTP).",
        )  # fmt: skip
    return passed("clock-here", "machine", "not before this site's own files")


def versions() -> Check:
    """What is installed: fedecg, Flower 1.39, torch, Python."""
    found = {name: _version(name) for name in ("fedecg", "flwr", "torch", "grpcio", "cryptography")}
    found["python"] = platform.python_version()
    words = ", ".join(f"{name} {number or 'missing'}" for name, number in found.items())
    fits = sys.version_info >= OLDEST_PYTHON and (found["flwr"] or "").startswith(FLOWER)
    if not fits or None in found.values():
        return failed(
            "versions", "settings", "FECG-642", f"{words}; expected flwr 1.39 and Python 3.11 or newer",
            "Install fedecg again with its constraints file; both sides need the same release.", **found,
        )  # fmt: skip
    return passed("versions", "settings", words, **found)


def disk(site: SiteFolder) -> Check:
    """Room for replies, checkpoint and logs. The store is there already, or not the agent's matter."""
    free = shutil.disk_usage(site.folder).free
    words = f"{free / GIB:.1f} GiB free"
    if free < LEAST_DISK_BYTES:
        return failed(
            "disk", "machine", "FECG-654", f"{words}; expected at least {LEAST_DISK_BYTES / GIB:.1f} GiB",
            "Free space on that disk, or move the site's folder.", free_bytes=free,
        )  # fmt: skip
    return passed("disk", "machine", words, free_bytes=free)


def memory() -> Check:
    """Memory that the agent and its worker may have, the control group's limit included."""
    free = _free_memory()
    if free is None:
        return passed("memory", "machine", "not told by this system")
    words = f"{free / GIB:.1f} GiB available"
    if free < LEAST_MEMORY_BYTES:
        return failed(
            "memory", "machine", "FECG-655", f"{words}; expected at least {LEAST_MEMORY_BYTES / GIB:.1f} GiB",
            "End other programs, or give the service more memory.", available_bytes=free,
        )  # fmt: skip
    return passed("memory", "machine", words, available_bytes=free, cores=os.cpu_count())


def gpu() -> Check:
    """Whether torch sees a GPU; a site needs none: local rounds run on the processor."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    words = f"{count} seen by torch" if count else "none"
    return passed("gpu", "machine", f"{words}; rounds are trained on the processor", count=count)


def policy(settings: PolicySettings) -> Check:
    """What the site takes part in."""
    if not settings.studies:
        return failed(
            "policy", "policy", "FECG-656", "no study: this site takes part in nothing",
            "Name the study in [policy] studies of site.toml, as the coordinator's study.toml has it.",
        )  # fmt: skip
    if not settings.phases:
        return failed(
            "policy", "policy", "FECG-656", "no phase: this site takes part in nothing",
            "Name the phases in [policy] phases of site.toml.",
        )  # fmt: skip
    studies = "any study" if ANY in settings.studies else ", ".join(settings.studies)
    words = f"{studies}; phases {', '.join(settings.phases)}; hours {settings.hours}"
    if ANY in settings.studies:
        words += "; no lock is kept: whoever the coordinator is, it may send any study"
    return passed(
        "policy", "policy", words, studies=settings.studies, phases=list(settings.phases), hours=settings.hours,
        locks=settings.locks,
    )  # fmt: skip


def _own_files(site: SiteFolder) -> list[Path]:
    files = [site.folder / "site.toml", site.key, site.state / "status.json", site.state / "events.jsonl"]
    return [file for file in files if file.is_file()]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _free_memory() -> int | None:
    free = [number for number in (_available(), _left_to_group()) if number is not None]
    return min(free, default=None)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _left_to_group() -> int | None:
    """Of control group version 2, as seen from inside: what a container may still have. Cached files can go."""
    group = Path("/sys/fs/cgroup")
    try:
        most, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, most - used + int(stat["inactive_file"]))
    except (OSError, ValueError, KeyError):
        return None
