"""`fedecg-client renew-key` and `key`: a new key waits beside the old one until the coordinator has it."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from pathlib import Path

import pytest
from client_words import Captured
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fedecg.federation.identity import read_public_key
from fedecg_client.cli import main
from fedecg_client.folder import open_site


def test_a_new_key_waits_beside_the_old_one_and_is_never_written_over(site: Path, capsys: Captured) -> None:
    old, other = (site / "node.key").read_bytes(), open_site(site)
    assert main(["renew-key", str(site)]) == 0
    told = capsys.readouterr().out
    new = read_public_key(site / "node.new.pub")
    assert new.fingerprint in told
    assert "site remove NAME" in told
    assert (site / "node.key").read_bytes() == old
    assert stat.S_IMODE((site / "node.new.key").stat().st_mode) == 0o600
    assert main(["key", str(site), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"key": read_public_key(site / "node.pub").fingerprint, "new-key": new.fingerprint}
    waiting = (site / "node.new.key").read_bytes()
    assert main(["renew-key", str(site)]) == 1
    assert "FECG-660 file node.new.key: found a key" in capsys.readouterr().err
    assert (site / "node.new.key").read_bytes() == waiting
    assert other.key == site / "node.key"


def test_a_new_key_is_also_told_as_a_document(site: Path, capsys: Captured) -> None:
    assert main(["renew-key", str(site), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "public-key": str(site / "node.new.pub"),
        "key-fingerprint": read_public_key(site / "node.new.pub").fingerprint,
    }


def test_the_old_key_stays_until_the_coordinator_can_be_asked(site: Path, capsys: Captured) -> None:
    assert main(["renew-key", str(site), "--use"]) == 1
    assert "FECG-660 new key: found none; expected node.new.key" in capsys.readouterr().err
    old = (site / "node.key").read_bytes()
    assert main(["renew-key", str(site)]) == 0
    assert main(["renew-key", str(site), "--use"]) == 1
    told = capsys.readouterr().err
    assert "FECG-649 new key: found coordinator: connection refused" in told
    assert "The old key stays" in told
    assert (site / "node.key").read_bytes() == old
    text = (site / "site.toml").read_text()
    (site / "site.toml").write_text(re.sub(r"\[server\].*?(?=\[policy\])", "", text, flags=re.DOTALL))
    assert main(["renew-key", str(site), "--use"]) == 1
    assert "FECG-643 site.toml: found no [server]" in capsys.readouterr().err


OPENSSH, PKCS8, PKCS1 = (
    (forms.Encoding.PEM, kind) for kind in (
        forms.PrivateFormat.OpenSSH, forms.PrivateFormat.PKCS8, forms.PrivateFormat.TraditionalOpenSSL,
    )
)  # fmt: skip
RSA, SHORT, RIGHT = (
    rsa.generate_private_key(65537, 2048),
    ec.generate_private_key(ec.SECP256R1()),
    ec.generate_private_key(ec.SECP384R1()),
)
OPEN = forms.NoEncryption()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"secret nonsense", "a file that is no private key, or a damaged one"),
        (RIGHT.private_bytes(*OPENSSH, OPEN)[:200], "a file that is no private key, or a damaged one"),
        (RIGHT.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH),
         "the public half of a key (node.pub?)"),
        (RIGHT.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo),
         "the public half of a key (node.pub?)"),
        (RSA.private_bytes(*OPENSSH, OPEN), "a key of kind RSA"),
        (RSA.private_bytes(*PKCS1, OPEN), "a key of kind RSA"),
        (RIGHT.private_bytes(*PKCS8, OPEN), "a private key in another form than OpenSSH's"),
        (SHORT.private_bytes(*OPENSSH, OPEN), "an EC key on secp256r1"),
        (None, "no such file"),
    ],
)  # fmt: skip
def test_what_stands_in_the_place_of_the_key_is_told_apart(
    site: Path, capsys: Captured, content: bytes | None, found: str
) -> None:
    (site / "node.key").unlink()
    if content is not None:
        (site / "node.key").write_bytes(content)
    for command in (["key", str(site)], ["start", str(site)]):
        assert main(command) != 0
        told = capsys.readouterr().err
        assert (
            f"FECG-643 node.key: found {found}; expected the site's private key: EC P-384, OpenSSH's form"
            in told
        )
        assert "Bring it back from this site's own backup. If it is lost: fedecg-client renew-key" in told
        assert "secret" not in told
        assert "ca.crt" not in told


def test_a_key_under_a_password_is_told(site: Path, capsys: Captured) -> None:
    for half in ("node.key", "node.pub"):
        (site / half).unlink()
    words = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "secret", "-f", str(site / "node.key")]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert main(["key", str(site)]) == 1
    assert "FECG-643 node.key: found a private key under a password" in capsys.readouterr().err


def test_the_fix_of_an_authority_is_not_that_of_a_key(site: Path, capsys: Captured) -> None:
    (site / "ca.crt").write_text("nonsense")
    assert main(["start", str(site)]) == 3
    told = capsys.readouterr().err
    assert (
        "FECG-643 ca.crt: found a file that is no PEM certificate; expected the coordinator's certificate"
        in told
    )
    assert "Ask the coordinator for tls/ca.crt, and compare its fingerprint over the phone." in told
    assert "renew-key" not in told


def test_a_new_key_in_the_place_of_a_lost_one_says_that_there_is_no_old_one(
    site: Path, capsys: Captured
) -> None:
    (site / "node.key").unlink()
    assert main(["renew-key", str(site)]) == 0
    told = capsys.readouterr().out
    assert "There is no old key to go on with (node.key: no such file). Next: send" in told
    assert "goes on with the old key" not in told
