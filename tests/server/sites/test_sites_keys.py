"""Key files that somebody sent: what is written down, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from site_keys import LINE, Key, new_key, public

from fedecg.errors import SettingsError
from fedecg_server.coordinator import Coordinator
from fedecg_server.sites import add_site, read_sites


def private(key: Key) -> bytes:
    return key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption())


def test_a_site_is_written_down_with_its_key_and_the_fingerprint_that_ssh_keygen_prints(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    key = new_key()
    change = add_site(coordinator, "city", key_file(public(key) + b" doctor@pc-17.hospital\n"))
    kept = (coordinator.keys / "city.pub").read_text()
    assert kept == f"{public(key).decode()} city\n"  # the comment stayed behind
    assert read_sites(coordinator).sites == {"city": change.entry}
    if shutil.which("ssh-keygen"):
        words = ["ssh-keygen", "-l", "-f", str(coordinator.keys / "city.pub")]
        assert change.entry.fingerprint in subprocess.run(words, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b",
        "../b",
        "..",
        ".hidden",
        "-x",
        "a b",
        "a\n",
        "a\0b",
        "x" * 65,
        "ö",
        "a\\b",
        "~",
        "$(id)",
        "a;b",
    ],
)
def test_names_that_could_lead_elsewhere_are_refused(
    coordinator: Coordinator, key_file: Callable[..., Path], name: str
) -> None:
    with pytest.raises(SettingsError, match="FECG-126 name of the site: found a name that cannot be used"):
        add_site(coordinator, name, key_file())
    assert list(coordinator.keys.iterdir()) == []
    assert read_sites(coordinator).sites == {}


def test_a_name_or_key_that_is_taken_is_refused(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    city = key_file()
    add_site(coordinator, "city", city)
    for name in ("city", "City"):
        with pytest.raises(
            SettingsError,
            match=r"FECG-126 name of the site: found a name that is taken.*First: fedecg-server site remove city\.",
        ):
            add_site(coordinator, name, key_file(name="other.pub"))
    with pytest.raises(SettingsError, match="FECG-129 key file: found the key of city"):
        add_site(coordinator, "coast", city)
    assert [file.name for file in coordinator.keys.iterdir()] == ["city.pub"]


def test_a_private_key_is_refused_with_the_advice_to_make_a_new_one_and_never_copied(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    key = new_key()
    pkcs8 = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    legacy = key.private_bytes(
        forms.Encoding.PEM, forms.PrivateFormat.TraditionalOpenSSL, forms.NoEncryption()
    )
    for content in (private(key), pkcs8, legacy, public(key) + b"\n" + private(key)):
        with pytest.raises(
            SettingsError, match="FECG-128 key file: found a PRIVATE key.*makes a new one"
        ) as refusal:
            add_site(coordinator, "city", key_file(content))
        assert content.splitlines()[1].decode() not in str(refusal.value)
    everything = b"".join(file.read_bytes() for file in coordinator.folder.rglob("*") if file.is_file())
    for content in (private(key), pkcs8, legacy):
        assert content.splitlines()[1] not in everything
    assert list(coordinator.keys.iterdir()) == []


def hostile_keys() -> dict[str, tuple[bytes, str]]:
    line = public(new_key())
    kind, encoded = line.split()
    p256 = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*LINE)
    other = [ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)]
    pem = new_key().public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    return {
        "empty": (b"", "0 lines"),
        "a word": (b"hello\n", "a line of another kind"),
        "no key": (kind + b"\n", "a line of another kind"),
        "trailing junk": (line + b"AAAA", "a damaged key|not written as OpenSSH"),
        "cut short": (line[:-20], "a damaged key"),
        "second key": (line + b"\n" + public(new_key()), "2 lines"),
        "options": (b'command="rm -rf /" ' + line, "a line of another kind"),
        "other base64": (kind + b" " + encoded.replace(b"A", b"*", 1), "a damaged key"),
        "padded junk": (kind + b" " + encoded + b"====", "a damaged key|not written as OpenSSH"),
        "another curve": (p256, "a line of another kind"),
        "curve under the wrong name": (kind + b" " + p256.split()[1], "a damaged key|a key of another kind"),
        "ed25519": (other[0].public_key().public_bytes(*LINE), "a line of another kind"),
        "rsa": (other[1].public_key().public_bytes(*LINE), "a line of another kind"),
        "pem": (pem, "lines"),
        "zeros": (b"\0" * 1000, "a line of another kind"),
        "not text": (bytes(range(256)), "lines|another kind"),
        "10 MB": (line + b" " * 10_000_000, "a file of more than 4096 bytes"),
    }


@pytest.mark.parametrize("case", list(hostile_keys()))
def test_key_files_that_are_none_are_refused_and_nothing_is_kept(
    coordinator: Coordinator, key_file: Callable[..., Path], case: str
) -> None:
    content, words = hostile_keys()[case]
    with pytest.raises(SettingsError, match=rf"FECG-127 key file: found .*({words}).*expected one line"):
        add_site(coordinator, "city", key_file(content))
    assert list(coordinator.keys.iterdir()) == []
    assert read_sites(coordinator).sites == {}


def test_links_pipes_folders_and_absent_files_are_no_keys(
    coordinator: Coordinator, key_file: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "link.pub").symlink_to(key_file())
    os.mkfifo(tmp_path / "pipe.pub")
    (tmp_path / "folder.pub").mkdir()
    for name, words in {
        "link.pub": "a symbolic link",
        "pipe.pub": "no plain file",
        "folder.pub": "no plain file|a folder",
        "absent.pub": "no such file",
    }.items():
        with pytest.raises(SettingsError, match=f"FECG-127 key file: found .*({words})"):
            add_site(coordinator, "city", tmp_path / name)
