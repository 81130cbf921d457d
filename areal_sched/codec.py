"""Messages to JSON and back.

A message is a JSON array: its code, then its fields in order. The journal's header spells the
codes out, so that a journal can be read without this code.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from areal_sched import commands as c
from areal_sched import events as e
from areal_sched import measurements as m

Message: TypeAlias = e.Event | c.Command | m.Measurement

CODES: Mapping[str, type] = {
    "joined": e.ServerJoined,
    "lost": e.ServerLost,
    "prompt": e.PromptArrived,
    "interrupted": e.RolloutsInterrupted,
    "finished": e.RolloutFinished,
    "failed": e.RolloutFailed,
    "reward": e.RewardComputed,
    "trained": e.TrainStepFinished,
    "train_failed": e.TrainStepFailed,
    "trainer": e.TrainerReady,
    "loaded": e.WeightsLoaded,
    "timer": e.TimerFired,
    "START": c.StartRollouts,
    "RESUME": c.ResumeRollouts,
    "INTERRUPT": c.InterruptRollouts,
    "ABORT": c.AbortRollouts,
    "DROP": c.DropRollouts,
    "LOAD": c.LoadWeights,
    "TRAIN": c.StartTrainStep,
    "TIMER": c.SetTimer,
    "server_span": m.ServerSpan,
    "trainer_span": m.TrainerSpan,
    "engine_span": m.EngineSteps,
}
"""Events in lower case, commands in capitals, measurements end in ``_span``."""


def schema() -> dict[str, list[str]]:
    """Code to [class name, field, field, ...]: the part of a journal's header that explains it."""
    return {
        code: [cls.__name__, *(f.name for f in dataclasses.fields(cls))]
        for code, cls in CODES.items()
    }


_dumps = json.JSONEncoder(separators=(",", ":")).encode
_quote = functools.lru_cache(maxsize=1024)(_dumps)


def _number(value: float) -> str:
    # repr is five times faster than json, which alone knows how to spell NaN and infinity. Made a
    # float first: the repr of True, or of a numpy number, is no JSON.
    value = float(value)
    return repr(value) if value - value == 0 else _dumps(value)


def _encoder(code: str, cls: type) -> Callable[[Any], str]:
    """Compile ``message -> JSON`` for one class.

    Compiled like `dataclasses` compiles ``__init__``: a formatted string with the fields written
    out takes a fifth of the time of a JSON encoder, and there are three messages a trajectory.
    """
    parts = []
    for field in dataclasses.fields(cls):
        value = f"m.{field.name}"
        kind = str(field.type)
        if kind == "str" or kind in ("FinishReason", "UpdateMode") or kind.endswith("Activity"):
            parts.append(f"{{quote({value})}}")
        elif kind == "float":
            # A finite float, by far the most frequent case, without a call.
            plain = f"type(v := {value}) is float and v - v == 0"
            parts.append(f"{{repr(v) if {plain} else number(v)}}")
        elif kind.startswith("tuple[tuple"):
            parts.append(f"{{dumps({value})}}")
        elif kind.startswith("tuple"):
            parts.append(f"{{list({value})}}")
        else:
            parts.append(f"{{{value}}}")
    text = f'["{code}",{",".join(parts)}]'
    names = {"quote": _quote, "number": _number, "dumps": _dumps, "list": list}
    return eval(f"lambda m: f'{text}'", names)  # type: ignore[no-any-return]


ENCODERS: Mapping[type, Callable[[Any], str]] = {
    cls: _encoder(code, cls) for code, cls in CODES.items()
}
"""Message class to its encoder; a message in, one JSON array out, no line breaks."""

_FIELDS = {code: tuple(f.name for f in dataclasses.fields(cls)) for code, cls in CODES.items()}


def decode(array: list[Any]) -> Message:
    """Rebuild a message from its JSON array.

    Raises:
        ValueError: unknown code, or the wrong number of fields.
    """
    code, *values = array
    cls = CODES.get(code)
    if cls is None:
        raise ValueError(f"unknown message code {code!r}")
    names = _FIELDS[code]
    if len(values) != len(names):
        raise ValueError(f"{code!r} has {len(values)} fields, expected {len(names)}")
    fields = {
        name: _tuples(value) if type(value) is list else value
        for name, value in zip(names, values, strict=True)
    }
    return cls(**fields)  # type: ignore[no-any-return]


def _tuples(value: list[Any]) -> tuple[Any, ...]:
    if value and type(value[0]) is list:
        return tuple(map(tuple, value))
    return tuple(value)
