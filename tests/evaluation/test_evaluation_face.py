"""The public face of the evaluation."""

import fedecg.evaluation as room


def test_every_public_name_is_there_and_documented():
    assert sorted(room.__all__) == sorted(set(room.__all__))
    for name in room.__all__:
        value = getattr(room, name)
        assert value.__doc__, name
