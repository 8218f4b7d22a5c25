"""The tests of attention on the wire: what arrives is what was sent, no patient, and refused where it cannot be."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from fedecg.config import ModelSettings
from fedecg.errors import FederationError
from fedecg.explanation import FaithfulnessSums, faithfulness, faithfulness_sums
from fedecg.explanation.checks import check_faithfulness_sums
from fedecg.explanation.documents import ExplainReply, sums_of_nobody
from fedecg.explanation.entry import explanation_entry, without_arrays
from fedecg.federation.messages import pack, unpack
from fedecg.model import Network, build_network

Tamper = Callable[[FaithfulnessSums], FaithfulnessSums]


@pytest.fixture(scope="module")
def sums(network: Network, ecgs: Any) -> FaithfulnessSums:
    return faithfulness_sums(network, ecgs.signal_mv, ecgs.time, ecgs.event, seed=4)


@pytest.fixture(scope="module")
def nobody(network: Network) -> FaithfulnessSums:
    return sums_of_nobody(network, seed=4)


def assert_same(one: FaithfulnessSums, other: FaithfulnessSums) -> None:
    for part in ("randomisation", "deletion", "occlusion", "stability"):
        left, right = getattr(one, part), getattr(other, part)
        assert (left is None) == (right is None)
        for field in () if left is None else fields(left):
            if field.name in ("plain", "hidden"):
                assert getattr(left, field.name) == getattr(right, field.name)
            else:
                np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name))
                assert (
                    np.asarray(getattr(left, field.name)).dtype
                    == np.asarray(getattr(right, field.name)).dtype
                )


@pytest.mark.parametrize("seeds", [False, True])
def test_sums_survive_the_wire_bit_for_bit(
    network: Network,
    ecgs: Any,
    nobody: FaithfulnessSums,
    sums: FaithfulnessSums,
    seeds: bool,
) -> None:
    other = build_network(ModelSettings(size="small"), 256, 8, seed=7)
    of = partial(faithfulness_sums, network, seed=4, seeds=[other] if seeds else ())
    sent = of(ecgs.signal_mv[:8], ecgs.time[:8], ecgs.event[:8]) if seeds else sums
    template = of(ecgs.signal_mv[:0], ecgs.time[:0], ecgs.event[:0]) if seeds else nobody
    reply, _ = unpack(pack(ExplainReply.of("city", sent)), ExplainReply)
    assert_same(reply.sums(template), sent)


def test_a_site_of_nobody_sends_zeros(nobody: FaithfulnessSums) -> None:
    reply, _ = unpack(pack(ExplainReply.of("city", nobody)), ExplainReply)
    assert_same(reply.sums(nobody), nobody)
    check_faithfulness_sums(reply.sums(nobody), "city", 0)
    assert not any(value for column in reply.arrays.values() for value in column)


def test_nothing_in_the_message_grows_with_the_number_of_patients(planted_ecgs: Callable[..., Any]) -> None:
    network = build_network(ModelSettings(size="small"), 256, 8, seed=3)
    many = planted_ecgs(50, 256, np.random.default_rng(5))
    replies = [
        ExplainReply.of(
            "city",
            faithfulness_sums(network, many.signal_mv[:n], many.time[:n], many.event[:n], seed=4),
        )
        for n in (10, 50)
    ]
    few, all_of_them = ({name: len(column) for name, column in reply.arrays.items()} for reply in replies)
    assert few == all_of_them
    assert len(replies[0].pairs) == len(replies[1].pairs) == 39
    assert sum(few.values()) < 200
    samples = many.signal_mv.ravel()
    sent = np.concatenate([np.ravel(column) for column in replies[1].arrays.values()])
    assert not np.isin(sent[np.abs(sent) > 1e-3].astype(np.float32), samples).any()


@pytest.mark.parametrize(
    ("array", "change", "found"),
    [
        ("randomisation.distance", lambda column: [-1.0, *column[1:]], "40 numbers, 1 of them impossible"),
        ("deletion.deletion", lambda column: column[:-1], r"\d+ numbers, 0 of them impossible"),
        ("occlusion.ecgs", lambda _: [0.5], "1 numbers, 1 of them impossible"),
    ],
)
def test_an_array_that_cannot_be_is_refused_by_name(
    sums: FaithfulnessSums, nobody: FaithfulnessSums, array: str, change: Any, found: str
) -> None:
    reply = ExplainReply.of("city", sums)
    spoilt = reply.model_copy(update={"arrays": {**reply.arrays, array: change(reply.arrays[array])}})
    with pytest.raises(FederationError, match=rf"FECG-503 {array} of a reply: found {found}; expected"):
        spoilt.sums(nobody)


def test_missing_arrays_and_pairs_are_counted(sums: FaithfulnessSums, nobody: FaithfulnessSums) -> None:
    reply = ExplainReply.of("city", sums)
    arrays = {name: column for name, column in reply.arrays.items() if name != "occlusion.moved"}
    with pytest.raises(
        FederationError, match="FECG-503 sums of a reply: found 1 arrays that are missing or unknown"
    ):
        reply.model_copy(update={"arrays": arrays}).sums(nobody)
    with pytest.raises(FederationError, match="FECG-503 pairs of a reply: found 38 numbers; expected 39"):
        reply.model_copy(update={"pairs": reply.pairs[1:]}).sums(nobody)


def test_numbers_that_are_not_finite_are_no_message(sums: FaithfulnessSums) -> None:
    content = pack(ExplainReply.of("city", sums))
    text = str(content["document"]["json"])  # type: ignore[index, call-overload]
    for wrong in ("Infinity", "NaN", "1e999"):
        content["document"]["json"] = text.replace(
            '"occlusion.agreement":[', f'"occlusion.agreement":[{wrong},'
        )  # type: ignore[index, call-overload]
        with pytest.raises(FederationError, match="FECG-501 ExplainReply message"):
            unpack(content, ExplainReply)


def test_honest_sums_pass(sums: FaithfulnessSums) -> None:
    check_faithfulness_sums(sums, "city", most=40)


def test_more_ecgs_than_the_site_has_are_refused(sums: FaithfulnessSums) -> None:
    with pytest.raises(FederationError, match="FECG-515 ECGs of city: found 40; expected at most 39"):
        check_faithfulness_sums(sums, "city", most=39)


def change(part: str, **values: Any) -> Tamper:
    """Put other numbers into a part; a function is given the number that stands there."""

    def tamper(sums: FaithfulnessSums) -> FaithfulnessSums:
        record = getattr(sums, part)
        new = {name: value(getattr(record, name)) for name, value in values.items()}
        return replace(sums, **{part: replace(record, **new)})

    return tamper


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (change("deletion", ecgs=lambda n: n - 1), "counts"),
        (change("occlusion", ecgs=lambda n: n + 1), "counts, occlusion"),
        (change("randomisation", distance=lambda d: d + 41), "randomisation"),
        (change("randomisation", similarity=lambda s: s - 100), "randomisation"),
        (change("deletion", area=lambda a: a + 1), "deletion"),
        (change("deletion", squared=lambda s: s * 0), "deletion"),
        (change("deletion", insertion=lambda c: c * np.array([[2.0], [1.0], [1.0]])), "deletion"),
        (change("occlusion", moved=lambda m: m * 0), "occlusion"),
        (change("occlusion", bars=lambda b: 2 * b), "occlusion"),
        (change("occlusion", agreement=lambda _: 41.0), "occlusion"),
        (change("occlusion", hidden=lambda h: (h[0] + h[0], *h[1:])), "pairs"),
        (change("occlusion", plain=lambda p: p + p, hidden=lambda h: tuple(c + c for c in h)), "pairs"),
    ],
)
def test_sums_that_no_ecgs_have_are_refused_part_by_part(
    sums: FaithfulnessSums, tamper: Tamper, named: str
) -> None:
    number = named.count(",") + 1
    with pytest.raises(
        FederationError,
        match=rf"FECG-527 explanation sums of city: found {number} part\(s\) .*: {named}; expected",
    ):
        check_faithfulness_sums(tamper(sums), "city", most=100)


def test_the_document_has_every_verdict_and_no_nan(sums: FaithfulnessSums, nobody: FaithfulnessSums) -> None:
    entry = explanation_entry("test", {"city": sums, "coast": nobody}, mixes_leads=True)
    assert entry["sites"] == {"city": 40, "coast": 0}
    assert entry["ecgs"] == 40
    result = faithfulness(sums)
    assert [verdict["passed"] for verdict in entry["verdicts"]] == [one.passed for one in result.verdicts]
    assert entry["captions"]["time attention"].endswith("says when, not in which lead.")
    empty = explanation_entry("test", {"coast": nobody}, mixes_leads=False)
    assert empty["time"]["p-value"] is None
    assert empty["occlusion"]["c-loss"] == [None] * 12


def test_the_summary_keeps_figures_and_verdicts_and_no_arrays(sums: FaithfulnessSums) -> None:
    entry = explanation_entry("test", {"city": sums}, mixes_leads=False)
    short = without_arrays(entry)
    assert short["verdicts"] == entry["verdicts"]
    assert short["deletion"]["deletion-random"] == entry["deletion"]["deletion-random"]
    assert not {"deletion", "insertion", "shares"} & set(short["deletion"])
    assert not {"moved", "bars", "c-loss"} & set(short["occlusion"])
