"""Messages: frozen, compared by value, and as JSON and back."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from areal_sched import Command, Event, Measurement, RewardComputed, messages
from areal_sched.codec import CODES, ENCODERS, decode, schema
from areal_sched.fold_commands import COMMAND_FOLDS
from areal_sched.fold_events import EVENT_FOLDS
from areal_sched.ids import RolloutId
from tests.sched import any_messages

EVERY_CLASS = sorted(CODES.values(), key=lambda cls: cls.__name__)


def test_every_message_has_a_code_and_every_event_and_command_a_fold() -> None:
    events, commands = set(get_args(Event)), set(get_args(Command))
    assert set(CODES.values()) == events | commands | set(get_args(Measurement))
    assert set(EVENT_FOLDS) == events
    assert set(COMMAND_FOLDS) == commands


def test_codes_tell_events_commands_and_measurements_apart() -> None:
    for code, cls in CODES.items():
        kind = cls.__module__.rpartition(".")[2]
        assert kind == ("measurements" if code.endswith("_span") else kind)
        assert code.isupper() == (kind == "commands")


def test_the_schema_names_every_field_in_order() -> None:
    assert schema()["reward"] == ["RewardComputed", "rollout_id", "reward"]
    for code, (name, *fields) in schema().items():
        cls = CODES[code]
        assert (cls.__name__, fields) == (name, [f.name for f in dataclasses.fields(cls)])


@pytest.mark.parametrize("cls", EVERY_CLASS)
def test_messages_are_frozen_compared_by_value_and_take_keywords_only(cls: type[Any]) -> None:
    assert messages.FREEZE, "tests run with frozen messages"

    @settings(max_examples=5)
    @given(one=any_messages.of(cls))
    def check(one: Any) -> None:
        fields = {f.name: getattr(one, f.name) for f in dataclasses.fields(cls)}
        same = cls(**fields)
        assert same == one
        assert hash(same) == hash(one)
        for name in fields:
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(one, name, 1)
        with pytest.raises(TypeError):
            cls(*fields.values())
        assert not hasattr(one, "__dict__")

    check()


@pytest.mark.parametrize("cls", EVERY_CLASS)
def test_every_message_survives_json(cls: type[Any]) -> None:
    @settings(max_examples=60)
    @given(one=any_messages.of(cls))
    def check(one: Any) -> None:
        text = ENCODERS[cls](one)
        assert "\n" not in text
        assert text.isascii()
        assert decode(json.loads(text)) == one

    check()


@given(value=st.floats(allow_nan=False) | st.integers(-(2**53), 2**53) | st.booleans())
def test_a_reward_of_any_number_type_is_written_as_json(value: Any) -> None:
    def through(reward: Any) -> Any:
        event = RewardComputed(rollout_id=RolloutId(1), reward=reward)
        return decode(json.loads(ENCODERS[RewardComputed](event)))

    assert through(value) == RewardComputed(rollout_id=RolloutId(1), reward=value)
    assert through(np.float64(value)) == RewardComputed(rollout_id=RolloutId(1), reward=value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (["unheard", 1], "unknown message code 'unheard'"),
        (["reward", 1], "'reward' has 1 fields, expected 2"),
        (["lost", 1, 2], "'lost' has 2 fields, expected 1"),
        ([], "not enough values"),
    ],
)
def test_an_array_that_is_no_message_is_refused(array: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(array)
