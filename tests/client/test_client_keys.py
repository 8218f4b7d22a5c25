"""`fedecg-client renew-key` and `key`: a new key waits beside the old one until the coordinator has it."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
from client_words import Captured
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec

from fedecg.errors import RunError
from fedecg.federation.identity import read_public_key
from fedecg_client import keys as keys_module
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


def test_a_key_that_is_no_key_is_told(site: Path, capsys: Captured) -> None:
    (site / "node.key").write_text("secret nonsense")
    assert main(["key", str(site)]) == 1
    told = capsys.readouterr().err
    assert "FECG-643 node.key: found a file that is no OpenSSH private key without a password" in told
    assert "secret" not in told
    key = ec.generate_private_key(ec.SECP256R1())
    (site / "node.key").write_bytes(
        key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption())
    )
    with pytest.raises(RunError, match=r"FECG-643 node.key: found a key of another kind"):
        keys_module.load_key(site / "node.key")
    (site / "node.key").unlink()
    with pytest.raises(RunError, match=r"FECG-643 node.key: found no such file.*renew-key"):
        keys_module.load_key(site / "node.key")
