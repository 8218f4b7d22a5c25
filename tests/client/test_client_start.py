"""`fedecg-client start` says at once what someone must mend."""

from __future__ import annotations

import datetime
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from client_words import Captured
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec

from fedecg_client.cli import main


@pytest.mark.parametrize(
    ("mend", "status", "said"),
    [
        (lambda site: (site / "node.key").chmod(0o640), 3, "FECG-651 a private key that others"),
        (lambda site: (site / "state").chmod(0o755), 3, "FECG-651 state/ that others can read"),
        (lambda site: (site / "ca.crt").unlink(), 3, "FECG-643 ca.crt: found no such file"),
        (
            lambda site: (site / "ca.crt").write_text("x"),
            3,
            "FECG-643 ca.crt: found a file that is no PEM certificate",
        ),
        (
            lambda site: (site / "node.pub").write_text("x"),
            3,
            "FECG-657 no node.pub that belongs to node.key",
        ),
        (lambda site: edit(site, r'studies = \["hf", "other"\]', "studies = []"), 4, "FECG-656 no study"),
        (lambda site: edit(site, r"phases = \[.*\]", "phases = []"), 4, "FECG-656 no phase"),
        (lambda site: (shutil.rmtree(site / "state"), (site / "state").write_text("")), 1, "FECG-601 state/"),
        (lambda site: edit(site, 'name = "north"', "name = 3"), 3, "FECG-103 site.toml"),
    ],
)
def test_start_says_at_once_what_someone_must_mend(
    site: Path, capsys: Captured, mend: Callable[[Path], object], status: int, said: str
) -> None:
    mend(site)
    assert main(["start", str(site)]) == status
    assert said in capsys.readouterr().err


def edit(site: Path, pattern: str, text: str) -> None:
    before = (site / "site.toml").read_text()
    after = re.sub(pattern, text, before)
    assert after != before
    (site / "site.toml").write_text(after)


def test_a_certificate_authority_that_has_expired_is_told(site: Path, capsys: Captured) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    for begins, ends, found in ((-9, -1, "has expired"), (1, 9, "is not valid yet")):
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now + begins * day).not_valid_after(now + ends * day)
        old = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        (site / "ca.crt").write_bytes(old.sign(key, hashes.SHA256()).public_bytes(forms.Encoding.PEM))
        assert main(["start", str(site)]) == 3
        assert f"FECG-643 ca.crt that {found}" in capsys.readouterr().err
    assert os.listdir(site / "state") == []  # noqa: PTH208
