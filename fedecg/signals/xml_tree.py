"""XML that a cardiograph wrote, as a tree: no entities, no files from elsewhere, no tree that outgrows its file.

In:  the bytes of a file. Out: its root element, without namespaces. Called by the XML readers of this room.

Vendors break XML in known ways, which are mended and nothing else: a stray `&`, and Latin-1 bytes in a file that
says, or is silent, and so means, UTF-8. A DOCTYPE is passed over; entities that it declares are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedecg.errors import SignalError
from fedecg.signals.faults import damaged, missing_package, too_large

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["child", "children", "is_xml", "parse_xml", "texts", "within"]

NAME = "XML"
# An element costs some 200 bytes, four letters in the file; what holds the samples of an ECG has a few thousand.
_TAGS_MAX = 100_000
_STRAY = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#\d{1,7}|#x[0-9a-fA-F]{1,6});)")
_DECLARATION = re.compile(rb"^\s*<\?xml[^>]*\?>")


def is_xml(head: bytes) -> bool:
    """Whether a file begins as XML: in UTF-8 or UTF-16, with or without a byte order mark."""
    return head.lstrip(b"\xef\xbb\xbf\xff\xfe \r\n\t\0")[:1] == b"<"


def parse_xml(content: bytes) -> Element:
    """Root of the tree, its tags and attributes without namespaces.

    Raises:
        SignalError: FECG-276 no package, FECG-277 not well-formed, FECG-278 too many tags, FECG-283 entities.
    """
    if content.count(b"<") > _TAGS_MAX or content.count(b"=") > _TAGS_MAX:
        raise too_large(NAME, "more tags and attributes than an ECG has")
    root = _parsed(content)
    for element in root.iter():
        if isinstance(element.tag, str) and "}" in element.tag:
            element.tag = element.tag.rpartition("}")[2]
        if any("}" in key for key in element.attrib):
            element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    return root


def _parsed(content: bytes) -> Element:
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError:
        raise missing_package(NAME) from None
    try:
        try:
            root: Element = fromstring(content)
        except (ParseError, ValueError, LookupError) as error:
            if isinstance(error, DefusedXmlException) or content.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise
            root = fromstring(_mended(content))
    except DefusedXmlException:
        raise SignalError(
            "FECG-283",
            "XML file",
            found="declarations of entities, or references outside the file",
            expected="XML without them: no cardiograph writes any",
            fix="Do not open it elsewhere either; ask where it comes from.",
        ) from None
    except (ParseError, ValueError, LookupError):
        raise damaged(NAME, "text that is not well-formed") from None
    return root


def _mended(content: bytes) -> bytes:
    """The same text with every stray & written as &amp;, in UTF-8."""
    body = _STRAY.sub(b"&amp;", content.removeprefix(b"\xef\xbb\xbf"))
    try:
        body.decode("utf-8")
        return body
    except UnicodeDecodeError:
        return _DECLARATION.sub(b"", body, count=1).decode("latin-1").encode("utf-8")


def children(element: Element, tag: str) -> list[Element]:
    """Children of that name, in any case."""
    return [each for each in element if isinstance(each.tag, str) and each.tag.lower() == tag.lower()]


def child(element: Element | None, *path: str) -> Element | None:
    """The first child, grandchild ... along the path; None where there is none."""
    for tag in path:
        found = [] if element is None else children(element, tag)
        element = found[0] if found else None
    return element


def within(element: Element, tag: str) -> Iterator[Element]:
    """All elements of that name below, in any case, in the order of the file."""
    return (each for each in element.iter() if isinstance(each.tag, str) and each.tag.lower() == tag.lower())


def texts(element: Element | None, *path: str) -> str:
    """Text of a child without spaces around it, "" where there is none."""
    found = child(element, *path)
    return "" if found is None or found.text is None else found.text.strip()
