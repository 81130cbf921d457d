"""``sim.faults.schedule``: faults that are written out, each with its time."""

# ruff: noqa: RUF009 - these calls make fields, not values

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from areal_sched.config.options import (
    Section,
    choice,
    number,
    options_of,
    toml_value,
    whole,
)
from areal_sched.errors import ConfigError, nearest

FaultKind = Literal[
    "server_lost",
    "server_hung",
    "server_slow",
    "servers_join",
    "connections_lost",
    "rollouts_failed",
    "weights_slow",
    "trainer_lost",
    "rewards_failed",
    "rewards_late",
]

KEY = "sim.faults.schedule"


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """One kind: what happens, the keys it needs, and those it takes beside."""

    meaning: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.needs, *self.takes)


KINDS: Mapping[str, _Kind] = {
    "server_lost": _Kind("`server` dies, and is back after `for_s`", ("server",), ("for_s",)),
    "server_hung": _Kind(
        "`server` does nothing any more; after `found_after_s` that is found out, and it is lost as"
        " by `server_lost`",
        ("server",),
        ("found_after_s", "for_s"),
    ),
    "server_slow": _Kind(
        "the steps of `server` take `factor` times as long, for `for_s`",
        ("server", "factor"),
        ("for_s",),
    ),
    "servers_join": _Kind("`count` new servers join, numbered on; not colocated", (), ("count",)),
    "connections_lost": _Kind(
        "the connections of the oldest `count` rollouts on `server` break: they stop, and what they"
        " generated is kept",
        ("server",),
        ("count",),
    ),
    "rollouts_failed": _Kind(
        "the oldest `count` rollouts on `server` fail, as where it refuses them or an answer is"
        " not understood",
        ("server",),
        ("count",),
    ),
    "weights_slow": _Kind(
        "weight loads that begin take `factor` times as long, for `for_s`", ("factor",), ("for_s",)
    ),
    "trainer_lost": _Kind(
        "the trainer dies; a step it is in has failed, and `for_s` later it is ready to begin the"
        " step again. Where it has nothing to do, that is found out as the next step begins",
        ("for_s",),
    ),
    "rewards_failed": _Kind("the next `count` rewards fail", (), ("count",)),
    "rewards_late": _Kind(
        "the next `count` rewards come `for_s` late, as where a worker dies and another does its"
        " work again",
        ("for_s",),
        ("count",),
    ),
}
"""The kinds of fault, by the value of ``fault``."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledFault(Section):
    """One fault of a schedule. A kind takes some of the keys only, see `KINDS`.

    Raises:
        ConfigError: a value is out of range, or the kind needs another key.
    """

    TABLE: ClassVar[str] = ""

    at_s: float = number("since the run began", unit="s", least=0)
    fault: FaultKind = choice("what happens", tuple(KINDS))
    server: int | None = whole("its number, from 0", None, least=0, optional=True)
    for_s: float | None = number(
        "how long it lasts; `inf`: for ever", None, unit="s", least=0, unbounded=True
    )
    found_after_s: float = number(
        "until a hung server is found out; by default as in a real run, which asks every 5 s and"
        " waits for 30 s, twice",
        65.0,
        unit="s",
        least=0,
    )
    factor: float = number("so many times as long", 1.0, least=1)
    count: int = whole("how many", 1)

    def _check(self) -> None:
        needs = KINDS[self.fault].needs
        if "server" in needs and self.server is None:
            raise ConfigError(f"server: missing: {self.fault} needs it")
        if "for_s" in needs and self.for_s is None:
            raise ConfigError(f"for_s = inf: {self.fault} needs an end")

    def table(self) -> dict[str, Any]:
        """The keys that its kind takes, as a configuration writes them."""
        keys = ("at_s", "fault", *KINDS[self.fault].keys)
        values = {key: getattr(self, key) for key in keys}
        return {key: value for key, value in values.items() if value is not None}


def read_schedule(value: object) -> tuple[ScheduledFault, ...]:
    """A schedule from what the file says.

    Raises:
        ConfigError: it is no list of tables, or one is wrong; the message begins with its place.
    """
    if isinstance(value, tuple) and all(isinstance(item, ScheduledFault) for item in value):
        return value
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"{KEY} = {toml_value(value)}: expected a list of tables")
    return tuple(_read(item, f"{KEY}[{index}]") for index, item in enumerate(value))


def _read(item: object, where: str) -> ScheduledFault:
    if not isinstance(item, Mapping):
        raise ConfigError(f"{where} = {toml_value(item)}: expected a table, as {{ at_s = 60, ...}}")
    known = {key: (field, option) for key, field, option in options_of(ScheduledFault)}
    for key in item:
        if key not in known:
            raise ConfigError(f"{where}.{key}: no such key{nearest(key, known)}")
    kind = KINDS.get(str(item.get("fault")))
    for key in ("at_s", "fault", *(kind.needs if kind else ())):
        if key not in item:
            raise ConfigError(f"{where}.{key}: missing: {known[key][1].expected}")
    if kind:
        for key in item:
            if key not in ("at_s", "fault", *kind.keys):
                takes = ", ".join(kind.keys)
                raise ConfigError(f"{where}.{key}: {item['fault']} does not take it, but {takes}")
    try:
        return ScheduledFault(**item)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from None


def check_schedule(schedule: Iterable[ScheduledFault], servers: int, *, colocated: bool) -> None:
    """Check that a schedule is one for so many servers.

    Raises:
        ConfigError: it names a server that there never is, or lets servers join that would have to
            share the trainer's GPUs.
    """
    faults = list(schedule)
    most = servers + joining(faults)
    for index, fault in enumerate(faults):
        if fault.fault == "servers_join" and colocated:
            raise ConfigError(
                f'{KEY}[{index}].fault = "servers_join": with cluster.colocated there are no GPUs'
                " for more servers"
            )
        if fault.server is not None and fault.server >= most:
            raise ConfigError(
                f"{KEY}[{index}].server = {fault.server}: there are {most}, numbered from 0"
            )


def joining(schedule: Iterable[ScheduledFault]) -> int:
    """How many servers join in the course of a schedule."""
    return sum(fault.count for fault in schedule if fault.fault == "servers_join")


def reference_note() -> str:
    """The list of kinds for the reference page, in Markdown."""
    rows = "".join(
        f"| `{name}` | {', '.join(f'`{key}`' for key in kind.needs)} |"
        f" {', '.join(f'`{key}`' for key in kind.takes)} | {kind.meaning} |\n"
        for name, kind in KINDS.items()
    )
    return (
        "`schedule` is a list of tables, each with `at_s` (seconds since the run began) and"
        " `fault`:\n\n| fault | needs | takes | what happens |\n|---|---|---|---|\n" + rows + "\n"
        "Without `for_s` a fault lasts for ever; `count` is 1 and `found_after_s` 65 s unless"
        " given. What should happen to a server that is down already, or has not joined yet, does"
        " not happen.\n"
    )
