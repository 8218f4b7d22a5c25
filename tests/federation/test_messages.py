"""What travels: one document, one vector, nothing else; and anything else is refused."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedecg.errors import FederationError
from fedecg.evaluation import RiskTimeGrid, site_counts
from fedecg.federation.messages import (
    CountsDocument,
    Failure,
    JoinReply,
    PartCounts,
    TrainReply,
    TrainTask,
    pack,
    size_bytes,
    unpack,
)

REPLY = TrainReply(site="a", round=3, patients=10, events=2, steps=5, loss=0.1 + 0.2, code_fingerprint="f")
TASK = TrainTask(lock_sha256="l", stage="align", round=1, bank_sha256="b", settings={})


def test_a_document_and_a_vector_come_back_bit_for_bit() -> None:
    vector = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    document, back = unpack(pack(REPLY, vector), TrainReply)
    assert document == REPLY
    assert back is not None
    assert back.tobytes() == vector.tobytes()


def test_a_message_without_weights_has_none() -> None:
    assert unpack(pack(REPLY), TrainReply)[1] is None


def test_join_replies_carry_counts_only() -> None:
    reply = JoinReply(
        site="a", parts={"train": PartCounts(patients=3, events=1)}, code_fingerprint="f", lock_sha256="l"
    )
    assert unpack(pack(reply), JoinReply)[0].parts["train"].events == 1


def test_the_other_sides_failure_arrives_as_its_code() -> None:
    with pytest.raises(FederationError, match="FECG-203") as caught:
        unpack(pack(Failure(site="a", failed="FECG-203")), TrainReply)
    assert caught.value.code == "FECG-203"


def test_a_failure_cannot_carry_text() -> None:
    with pytest.raises(ValueError, match="pattern"):
        Failure(site="a", failed="patient 17 has no lead V3")


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"document": ConfigRecord({"json": 3})}),
        RecordDict({"document": ConfigRecord({"json": "{"})}),
        RecordDict({"document": ConfigRecord({"json": '{"site": "a", "extra": 1}'})}),
    ],
)
def test_anything_but_the_document_is_refused(content: RecordDict) -> None:
    with pytest.raises(FederationError, match="FECG-501"):
        unpack(content, TrainReply)


def test_arrays_other_than_one_float32_vector_are_refused() -> None:
    content = pack(REPLY)
    content["weights"] = ArrayRecord({"flat": Array(np.zeros(3))})
    with pytest.raises(FederationError, match="FECG-501.*one vector of float32"):
        unpack(content, TrainReply)


@pytest.mark.parametrize("data", [b"junk", np.save.__doc__.encode()], ids=["few", "many"])
def test_bytes_that_are_no_array_are_refused_whatever_they_declare(data: bytes) -> None:
    content = pack(REPLY)
    array = Array(dtype="float32", shape=(3,), stype="numpy.ndarray", data=data)
    content["weights"] = ArrayRecord({"flat": array})
    with pytest.raises(FederationError, match="FECG-501"):
        unpack(content, TrainReply)


def test_numbers_beyond_any_study_are_refused() -> None:
    text = REPLY.model_dump_json(by_alias=True).replace('"patients":10', f'"patients":{10**30}')
    with pytest.raises(FederationError, match=r"FECG-501.*patients"):
        unpack(RecordDict({"document": ConfigRecord({"json": text})}), TrainReply)


def test_the_size_of_a_message_is_that_of_its_payload() -> None:
    bare, loaded = size_bytes(pack(TASK)), size_bytes(pack(TASK, np.zeros(1000, np.float32)))
    assert 4000 <= loaded - bare <= 4200


def test_concordance_counts_come_back_exactly() -> None:
    rng = np.random.default_rng(1)
    grid = RiskTimeGrid(time_cuts_days=np.array([100.0, 300.0]), risk_cuts=np.array([-0.5, 0.0, 0.5]))
    counts = site_counts(rng.exponential(200, 50), rng.random(50) < 0.4, rng.normal(size=50), grid)
    back = CountsDocument.of(counts).counts(grid)
    assert np.array_equal(back.cells, counts.cells)
    assert back.pairs == counts.pairs


def test_cells_of_another_grid_are_refused() -> None:
    grid = RiskTimeGrid(time_cuts_days=np.array([100.0]), risk_cuts=np.array([0.0]))
    document = CountsDocument(
        cells=[1, 2],
        concordant=0,
        discordant=0,
        tied_risk=0,
        credit_squares=0.0,
        mixed_squares=0.0,
        comparable_squares=0.0,
    )
    with pytest.raises(FederationError, match="FECG-503.*2 numbers.*8 numbers"):
        document.counts(grid)
