"""What the coordinator's fleet port answers: is it one, does it know this site's key, is this machine's clock right?

In:  address, authority, key. Out: one `Check` each. Called by preflight and doctor. Nothing changes at the coordinator,
and an agent that runs goes on undisturbed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from fedecg_client.environment import set_environment
from fedecg_client.faults import LinkError, version_error
from fedecg_client.preflight.check import Check, failed, passed, skipped

if TYPE_CHECKING:
    from fedecg_client.probe import Probe

__all__ = ["Fleet"]

KIND = "connection"
# Flower lets a signature be this much older or newer than its own clock, in seconds.
MOST_BEHIND_S, MOST_AHEAD_S = 305.0, 5.0
STEP_S, MOST_STEPS = 300.0, 12  # a wrong clock is looked for up to an hour to either side
NEAR_S = 2.0


class Fleet:
    """Questions to the fleet port.

    Args:
        address: host:port.
        ca: file of the authority.
        key: of the site; none if it cannot be used.
    """

    def __init__(self, address: str, ca: Path, key: ec.EllipticCurvePrivateKey | None) -> None:
        self.address, self.ca, self.key = address, ca, key
        self._probe: Probe | None = None
        self.is_fleet = False

    def check_port(self, reached: bool) -> Check:
        """An unsigned call must be refused for that."""
        if not reached:
            return skipped("fleet-port", KIND, "no connection that can be trusted")
        try:
            answer = self._connected().ask(None)
        except LinkError as fault:
            return _of("fleet-port", fault)
        if answer == "open":
            return failed(
                "fleet-port", KIND, "FECG-647", "a SuperLink that asks no site for a key",
                "Tell the coordinator: it must be started with `fedecg-server start`.",
            )  # fmt: skip
        self.is_fleet = True
        return passed("fleet-port", KIND, "a fleet port that refuses unsigned calls")

    def check_clock(self) -> Check:
        """This machine's clock against the coordinator's, as far as signatures allow."""
        if not self.is_fleet or self.key is None:
            return skipped("clock", KIND, "no fleet port, or no key to sign with")
        try:
            if self._accepts(0.0):
                near = not self._accepts(NEAR_S)
                words = f"between {MOST_AHEAD_S:.0f} s ahead of the coordinator's and {MOST_BEHIND_S:.0f} s behind it"
                words += f"; within {NEAR_S:.0f} s of being refused as ahead: set it (NTP)" if near else ""
                return passed("clock", KIND, words)
            return failed(
                "clock", KIND, "FECG-652", self._how_wrong(),
                "Set this machine's clock (NTP); it is UTC that counts. Or the coordinator's is wrong: compare both.",
            )  # fmt: skip
        except LinkError as fault:
            return _of("clock", fault)

    def check_registered(self, running: int | None) -> Check:
        """Is this site's key on the coordinator's list? A call that activates nothing asks."""
        name = "key-registered"
        if not self.is_fleet or self.key is None:
            return skipped(name, KIND, "no fleet port, or no key to sign with")
        try:
            answer = self._connected().ask(self.key)
        except LinkError as fault:
            return _of(name, fault)
        if answer == "clock":
            return skipped(name, KIND, "the clock is too far off")
        if answer != "registered":
            return failed(
                name, KIND, "FECG-648", "a key that is not on the coordinator's list (not added yet, or removed)",
                "Send node.pub to the coordinator, who runs `fedecg-server site add NAME --key node.pub`, and compare "
                "the fingerprint over the phone: fedecg-client key. A key that was removed does not come back: "
                "fedecg-client renew-key.",
            )  # fmt: skip
        words = "on the coordinator's list" + (f"; the agent runs (process {running})" if running else "")
        return passed(name, KIND, words)

    def close(self) -> None:
        """End the connection."""
        if self._probe:
            self._probe.close()

    def _connected(self) -> Probe:
        if self._probe is None:
            set_environment()
            try:
                from fedecg_client.probe import Probe
            except ImportError:
                raise LinkError(version_error("a Flower whose inside is not that of 1.39")) from None
            self._probe = Probe(self.address, self.ca.read_bytes())
        return self._probe

    def _accepts(self, shift_s: float) -> bool:
        return self._connected().ask(self.key, shift_s) != "clock"

    def _how_wrong(self) -> str:
        """In steps of five minutes: a signature that is accepted with a shift tells where the clock stands."""
        minutes = STEP_S / 60
        for step in range(1, MOST_STEPS + 1):
            for sign, least, words in ((-1, step - 1, "ahead of"), (1, step, "behind")):
                if self._accepts(sign * step * STEP_S):
                    span = f"{least * minutes:.0f} to {(least + 1) * minutes:.0f} min"
                    return f"a clock {span} {words} the coordinator's, which lets 5 s and 5 min pass"
        return f"a clock more than {MOST_STEPS * minutes:.0f} min from the coordinator's"


def _of(name: str, fault: LinkError) -> Check:
    error = fault.error
    return failed(name, KIND, error.code, f"{error.what}: {error.found}", error.fix)
