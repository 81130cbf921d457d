"""Any message at all, of every class, for property tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from areal_sched.codec import CODES

COUNT = st.integers(0, 2**63)
NS = st.integers(-(2**63), 2**63)

BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "int": NS,
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "str": st.text(st.characters(exclude_categories=()), max_size=20),
    "FinishReason": st.sampled_from(("stop", "length")),
    "UpdateMode": st.sampled_from(("interrupt", "in_place", "drain")),
    "EngineActivity": st.sampled_from(("prefill", "decode")),
    "ServerActivity": st.sampled_from(("generate", "load", "paused", "idle", "down", "lent")),
    "TrainerActivity": st.sampled_from(("switch", "proximal", "minibatch", "optimizer", "idle")),
    "tuple[RolloutId, ...]": st.lists(COUNT, max_size=5).map(tuple),
    "tuple[tuple[RolloutId, int], ...]": st.lists(st.tuples(COUNT, COUNT), max_size=5).map(tuple),
}
BY_TYPE |= dict.fromkeys(("GroupId", "PromptId", "RolloutId"), COUNT)
BY_TYPE |= dict.fromkeys(("ServerId", "TimerId", "WeightVersion"), COUNT)


def of(cls: type) -> st.SearchStrategy[Any]:
    """Messages of one class."""
    fields = {field.name: BY_TYPE[str(field.type)] for field in dataclasses.fields(cls)}
    return st.builds(cls, **fields)


def of_module(module: str) -> st.SearchStrategy[Any]:
    """Messages of all classes of one module: events, commands or measurements."""
    classes = [cls for cls in CODES.values() if cls.__module__ == f"areal_sched.{module}"]
    return st.one_of([of(cls) for cls in classes])


events = of_module("events")
commands = of_module("commands")
measurements = of_module("measurements")
