"""Everything that can be wrong before a site takes part, each under a name, with its code and its fix.

In:  a site's folder. Out: all checks, also after one that failed; those that cannot be tried are skipped.
Called by `fedecg-client` preflight, start (the quick ones) and doctor.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from fedecg.errors import FedecgError, SettingsError
from fedecg_client.folder import SiteFolder, open_site, split_address
from fedecg_client.keys import load_key
from fedecg_client.preflight import local, privacy
from fedecg_client.preflight.check import (
    Check,
    exit_status_of,
    failed,
    of_error,
    passed,
    skipped,
    tried,
    wrong,
)
from fedecg_client.preflight.data import SiteDataChecks
from fedecg_client.preflight.fleet import Fleet
from fedecg_client.preflight.line import Line
from fedecg_client.running import running_agent

__all__ = [
    "Check",
    "data_checks",
    "exit_status_of",
    "line_checks",
    "local_checks",
    "quick_checks",
    "run_preflight",
    "wrong",
]

LINE = (
    "proxy",
    "dns",
    "tcp",
    "tls",
    "tls-chain",
    "tls-name",
    "certificate",
    "fleet-port",
    "clock",
    "key-registered",
)
Look = tuple[str, str, Callable[[], Check]]
VERSIONS: Look = ("versions", "settings", local.versions)
MEMORY: Look = ("memory", "machine", local.memory)


def run_preflight(folder: Path) -> list[Check]:
    """All checks of a site.

    Raises:
        SettingsError: FECG-123 if it is no site's folder. Everything else is a failed check.
    """
    try:
        site = open_site(folder)
    except SettingsError as error:
        if error.code == "FECG-123":
            raise
        why = "site.toml cannot be used"
        names = ("folder", "key", "ca", "policy", "privacy", *LINE, "cohort", "store", "data")
        return [
            of_error("settings", "settings", error),
            *_all([VERSIONS, MEMORY]),
            *(skipped(name, "settings", why) for name in names),
        ]
    settings = passed("settings", "settings", f"site.toml of {site.settings.name}")
    return [settings, *local_checks(site), *line_checks(site), *data_checks(site)]


def quick_checks(site: SiteFolder) -> list[Check]:
    """What `start` looks at: a moment, and no connection."""
    looks: list[Look] = [
        ("folder", "machine", lambda: local.folder(site)),
        ("key", "settings", lambda: local.key(site)),
        ("ca", "settings", lambda: local.authority(site)),
        VERSIONS,
        ("policy", "policy", lambda: local.policy(site.settings.policy)),
        ("privacy", "policy", lambda: privacy.budget(site)),
    ]
    return _all(looks)


def local_checks(site: SiteFolder) -> list[Check]:
    """The quick ones, and this machine."""
    looks: list[Look] = [
        ("clock-here", "machine", lambda: local.local_clock(site)),
        ("disk", "machine", lambda: local.disk(site)),
        MEMORY,
        ("gpu", "machine", local.gpu),
    ]
    return [*quick_checks(site), *_all(looks)]


def line_checks(site: SiteFolder) -> list[Check]:
    """The way to the coordinator, and what it says of this site."""
    server = site.settings.server
    if server is None:
        fix = "Write [server] with the coordinator's address, as fedecg-client init does."
        first = failed(LINE[0], "settings", "FECG-643", "no [server] in site.toml", fix)
        return [first, *(skipped(name, "connection", "no [server] in site.toml") for name in LINE[1:])]
    try:
        line = Line(*split_address(server.address), site.ca)
    except SettingsError as error:
        first = of_error("proxy", "settings", error)
        return [first, *(skipped(name, "connection", "no address") for name in LINE[1:])]
    fleet = Fleet(server.address, site.ca, _key(site))
    looks = (
        line.check_proxy, line.check_name, line.check_tcp, line.check_tls, line.check_chain,
        line.check_certificate_name, line.check_dates, lambda: fleet.check_port(line.usable), fleet.check_clock,
        lambda: fleet.check_registered(_running(site)),
    )  # fmt: skip
    try:
        return [tried(name, "connection", look) for name, look in zip(LINE, looks, strict=True)]
    finally:
        fleet.close()


def data_checks(site: SiteFolder) -> list[Check]:
    """The site's own data."""
    data = SiteDataChecks(site)
    looks: list[Look] = [
        ("cohort", "data", data.check_cohort),
        ("store", "data", data.check_store),
        ("data", "data", data.check_together),
    ]
    if site.settings.text is not None:
        looks.append(("reports", "data", data.check_reports))
    return _all(looks)


def _all(looks: list[Look]) -> list[Check]:
    return [tried(name, kind, look) for name, kind, look in looks]


def _key(site: SiteFolder) -> ec.EllipticCurvePrivateKey | None:
    with suppress(FedecgError):
        return load_key(site.key)
    return None


def _running(site: SiteFolder) -> int | None:
    with suppress(FedecgError):
        return running_agent(site.state)
    return None
