"""What does not match: name, fingerprints, clock, key, versions, locks, and what the last refusals meant.

In:  a site's folder; fingerprints that somebody read over the phone. Out: checks, and the refusals of events.jsonl with
their meaning and fix. Called by `fedecg-client doctor`. Also beside a running agent: nothing is disturbed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fedecg.codes import CODES
from fedecg.federation.identity import certificate_fingerprint, public_key_of
from fedecg.fingerprint import code_fingerprint
from fedecg_client.folder import SiteFolder
from fedecg_client.keys import authority_of, load_key
from fedecg_client.overview import joined_studies, overview, read_events
from fedecg_client.preflight import line_checks, quick_checks
from fedecg_client.preflight.check import Check, failed, passed, skipped, tried
from fedecg_client.site_status import LEFT_OUT as LEFT_OUT_FILE

__all__ = ["diagnose", "refusals"]

MOST_REFUSALS = 10
NOT_LET_IN = "FECG-648"
PHONE = "Do not start. Compare again over the phone, with a number that you know; then bring the right file."
LEFT_OUT = (
    "The coordinator left this site's reply out and went on; it is asked again in the next round. If it happens again: "
    "fedecg-client preflight (units, amplitudes, follow-up), then ask the coordinator what the others' look like."
)
# What a site does about what its events name, where it is not what the code's own message says.
FIXES = {
    "2": "The site's own data: fedecg-client preflight says where.",
    "3": "The study's model does not fit this site: compare versions and settings with the coordinator.",
    "4": "This site's policy in site.toml, or a study that changed: fedecg-client studies shows what was agreed to.",
    "5": "Both sides must run the same fedecg: compare `fedecg --version` and the code fingerprint.",
    "FECG-503": LEFT_OUT,
    "FECG-504": LEFT_OUT,
    "FECG-505": LEFT_OUT,
    "FECG-515": LEFT_OUT,
    "FECG-545": LEFT_OUT,
    "FECG-554": "Read it (fedecg-client studies), compare its hash by phone, then: fedecg-client accept STUDY SHA256.",
    "FECG-411": "To take part, name the study in [policy] studies of site.toml.",
    "FECG-413": "Compare the new hash with the coordinator, then: fedecg-client accept STUDY SHA256.",
    "FECG-417": "To take part in it, name the phase in policy.phases of site.toml.",
    "FECG-418": "Nothing to do: the site works in policy.hours; or widen them.",
    "FECG-419": "Nothing to do: the count starts anew at midnight; or raise policy.rounds-a-day.",
    "FECG-448": "Free space on that disk, or give state/egress to the user that runs fedecg.",
    "FECG-449": "Look at it: fedecg-client approve STUDY shows what would leave, and asks.",
    "FECG-599": "Its place stands in the site's own log (journalctl -u fedecg-client): send that line, and no data.",
    "FECG-601": "Free space on that disk, or give the site's folder to the user that runs fedecg.",
    "FECG-604": "The agent was stopped, or a task ran longer than policy.task-limit-s.",
    "FECG-642": "Install fedecg again with its constraints file; both sides need the same release.",
    "FECG-643": "Bring ca.crt again, or make a new key: fedecg-client renew-key.",
    "FECG-644": "Compare the fingerprint of ca.crt over the phone; exempt the address from TLS inspection.",
    "FECG-645": "Write server.address as the coordinator gave it.",
    "FECG-646": "Check this machine's clock; if it is right, the coordinator runs `fedecg-server renew`.",
    "FECG-647": "Check the port in server.address: the fleet port.",
    NOT_LET_IN: "Is the key on the list, does another machine use it, is the clock right? The checks above.",
    "FECG-649": "Nothing to do if the coordinator is being restarted; else the firewall. The checks above.",
}


def diagnose(site: SiteFolder, ca_fingerprint: str = "", key_fingerprint: str = "") -> list[Check]:
    """Everything that can be compared.

    Args:
        site: the folder.
        ca_fingerprint: of the coordinator's ca.crt, as it was read over the phone; spaces and colons do not count.
        key_fingerprint: of this site's key, as the coordinator's list has it.
    """
    line = line_checks(site)
    return [
        *quick_checks(site),
        tried("ca-fingerprint", "settings", lambda: _authority(site, ca_fingerprint)),
        tried("key-fingerprint", "settings", lambda: _key(site, key_fingerprint)),
        *line,
        tried("locks", "policy", lambda: _locks(site)),
        tried("agent", "connection", lambda: _agent(site, line)),
    ]


def refusals(site: SiteFolder) -> list[dict[str, Any]]:
    """What the events name since a task was last done: each code once, with how often and when last, its meaning and
    its fix; newest first."""
    found: dict[str, dict[str, Any]] = {}
    for event in _since_it_worked(site):
        code = event.get("code")
        if not isinstance(code, str) or not re.fullmatch(r"FECG-\d{3}", code):
            continue
        times = found.pop(code, {}).get("times", 0) + 1  # popped, so that the newest stands last
        found[code] = {
            "code": code,
            "meaning": CODES.get(code, "a code of another version"),
            "times": times,
            "last": event.get("time"),
            "fix": FIXES.get(code, FIXES.get(code[5], "See the message in the site's own log.")),
        }
    return list(reversed(found.values()))[:MOST_REFUSALS]


def _since_it_worked(site: SiteFolder) -> list[dict[str, Any]]:
    """Events that still matter: a task that is done shows that what was said before it is mended; that a reply was
    left out is told with a later task, and matters until a reply is taken."""
    events: list[dict[str, Any]] = []
    refused = False
    for event in read_events(site.state):
        if event["event"] == "reply":
            events = events if refused else [told for told in events if told["event"] == "left-out"]
            refused = False
        refused = refused or event["event"] in ("task-refused", "foreign-bundle")
        events.append(event)
    if (site.state / LEFT_OUT_FILE).exists():
        return events
    return [event for event in events if event["event"] != "left-out"]


def _authority(site: SiteFolder, told: str) -> Check:
    own = certificate_fingerprint(authority_of(site.ca))
    if not told:
        return skipped("ca-fingerprint", "settings", f"{own}: compare it over the phone (--ca-fingerprint)")
    if _digits(told) != _digits(own):
        return failed("ca-fingerprint", "settings", "FECG-658", f"{own}, not what was told", PHONE)
    return passed("ca-fingerprint", "settings", "that of the coordinator")


def _key(site: SiteFolder, told: str) -> Check:
    own = public_key_of(load_key(site.key)).fingerprint
    if not told:
        return skipped("key-fingerprint", "settings", f"{own}: compare it over the phone (--key-fingerprint)")
    if told.strip().removeprefix("SHA256:") != own.removeprefix("SHA256:"):
        return failed(
            "key-fingerprint", "settings", "FECG-657", f"{own}, not that of the coordinator's list",
            "Send node.pub again; the coordinator removes the other key and adds this one.",
        )  # fmt: skip
    return passed("key-fingerprint", "settings", "that of the coordinator's list")


def _locks(site: SiteFolder) -> Check:
    """What was agreed to, against the policy, the installed code, and what was proposed since."""
    studies = joined_studies(site.state)
    for joined in studies:
        name = f"study {joined.study}"
        wanted = site.settings.policy.locks.get(joined.study)
        if joined.damaged:
            return failed(
                "locks", "policy", "FECG-413", f"no lock of {name} that can be read", FIXES["FECG-413"]
            )
        if joined.lock is None and joined.proposed:
            found = f"{name} waits for this site's consent: {joined.proposed.sha256()}"
            return failed("locks", "policy", "FECG-554", found, FIXES["FECG-554"])
        if joined.lock is None:  # agreed to before it came
            continue
        if wanted and wanted != joined.lock.sha256():
            return failed(
                "locks", "policy", "FECG-412", f"another lock of {name} than policy.locks", FIXES["4"]
            )
        if joined.proposed:
            found = f"a changed lock of {name} that waits: {joined.proposed.sha256()}"
            return failed("locks", "policy", "FECG-413", found, FIXES["FECG-413"])
        if joined.lock.code_fingerprint != code_fingerprint():
            return failed(
                "locks",
                "policy",
                "FECG-541",
                f"other code installed than {name} was agreed on with",
                FIXES["5"],
            )
    pinned = {joined.study: joined.lock.sha256() for joined in studies if joined.lock}
    words = ", ".join(f"{study} {sha256[:12]}..." for study, sha256 in pinned.items())
    return passed("locks", "policy", words or "no study has been joined yet", locks=pinned)


def _agent(site: SiteFolder, line: Sequence[Check]) -> Check:
    """What the agent says, and what it cannot know: that it is registered, and not let in."""
    document = overview(site)
    state, code = document["state"], document["code"]
    registered = any(check.name == "key-registered" and check.ok for check in line)
    if code == NOT_LET_IN and registered and document["running"]:
        return failed(
            "agent", "connection", NOT_LET_IN, "an agent that is not let in, with a key that is on the list",
            "Another machine runs an agent with this key, or one was killed a minute ago: it passes by itself then.",
        )  # fmt: skip
    if state in ("killed", "silent"):
        return failed("agent", "connection", "FECG-659", f"an agent that was {state}", "fedecg-client start")
    return passed("agent", "connection", state + (f", {code}" if code else ""))


def _digits(fingerprint: str) -> str:
    return re.sub(r"[^0-9A-F]", "", fingerprint.rpartition("=")[2].upper())
