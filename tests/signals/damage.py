"""Ways to damage a file: what disks, transfers, odd exports and attackers do to it. Deterministic in the generator."""

import random
import re
from collections.abc import Callable

Damage = Callable[[bytes, random.Random], bytes]

# What parsers stumble over: sizes at the edges of their types, numbers that are none, markup that unfolds.
WORDS = [
    b"-1", b"0", b"1e400", b"nan", b"-inf", b"99999999999999999999", b"4294967295", b"2147483647", b"\x00" * 8,
    b"\xff" * 8, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\xff\xfe", b"\x1f\x8b\x08", b"PK\x03\x04", b"%s%n",
    b"../../x", b"&lol;", b"]]>", b"<!--", b"</", b"\"", b"'", b",", b"\n", b"\r", b"\t", b"\xc3\x28",
    b'<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>',
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
]  # fmt: skip
NUMBER = re.compile(rb"\d+(\.\d+)?")


def truncated(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def bits_flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def word_put_in(content: bytes, chance: random.Random) -> bytes:
    at, word = chance.randrange(len(content) + 1), chance.choice(WORDS)
    return content[:at] + word + content[at + chance.choice((0, len(word))) :]


def number_changed(content: bytes, chance: random.Random) -> bytes:
    """A count, rate, gain or size in digits becomes another one."""
    start = chance.randrange(len(content) + 1)
    found = NUMBER.search(content, start) or NUMBER.search(content)
    if found is None:
        return word_put_in(content, chance)
    return content[: found.start()] + chance.choice(WORDS[:8]) + content[found.end() :]


def size_changed(content: bytes, chance: random.Random) -> bytes:
    """Two, four or eight bytes become a number at the edge of its type."""
    width = chance.choice((2, 4, 8))
    if len(content) < width:
        return content
    value = chance.choice((0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1))
    # The front of a file is where its sizes stand.
    at = chance.randrange(min(len(content), chance.choice((64, 1024, len(content)))) - width + 1)
    return content[:at] + value.to_bytes(width, chance.choice(("little", "big"))) + content[at + width :]


def piece_lost(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    return content[:at] + content[at + chance.choice((1, 16, 512)) :]


def piece_doubled(content: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(content) + 1), chance.choice((1, 16, 512))
    return content[: at + size] + content[at:]


def line_lost(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if lines:
        del lines[chance.randrange(len(lines))]
    return b"".join(lines)


def noise_put_in(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    return content[:at] + chance.randbytes(chance.choice((1, 16, 512))) + content[at:]


KINDS: tuple[Damage, ...] = (
    truncated, bits_flipped, bits_flipped, word_put_in, number_changed, number_changed, size_changed, size_changed,
    piece_lost, piece_doubled, line_lost, noise_put_in,
)  # fmt: skip


def damaged(content: bytes, seed: int) -> bytes:
    """One to three kinds of damage, one after the other."""
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        content = chance.choice(KINDS)(content, chance)
    return content
