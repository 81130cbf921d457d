"""Which options and limits a scheduler takes: for whoever runs every scheduler in every way."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from areal_sched import ConfigError, Limits, built_in, load

EXAMPLES: tuple[str, ...] = ("examples.generate_ahead:GenerateAhead",)
"""Import paths, ``module:Class``, of schedulers that live elsewhere in this repository."""


def schedulers() -> list[str]:
    """Every scheduler of this repository, as `areal_sched.load` takes them."""
    return [*built_in(), *EXAMPLES]


OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "unit": ("group", "rollout"),
    "routing": ("least_loaded", "round_robin", "least_kv"),
    "mode": ("interrupt", "in_place", "drain"),
    "barrier": (True, False),
    "servers_at_once": (None, 1, 2),
    "resume_after": ("load", "evaluation"),
    "over_provision": (1.0, 1.5, 3.0),
    "alpha": (0.0, 0.5, 1.0),
}
"""Options by the names that schedulers share; those a scheduler has are varied."""

BASIC = Limits(train_batch_rollouts=8, group_size=2, eta=2, max_rollouts_in_flight=24)


class Refused(AssertionError):
    """A scheduler accepts no limits at all with some options."""


@functools.cache
def options_of(path: str) -> dict[str, tuple[Any, ...]]:
    """Names and values of the options to vary for one scheduler: those that it accepts."""
    names = inspect.signature(type(load(path, accepted(path, BASIC)))).parameters
    vary: dict[str, tuple[Any, ...]] = {}
    for name in OPTIONS.keys() & names:
        for value in OPTIONS[name]:
            try:
                accepted(path, BASIC, {name: value})
            except Refused:
                continue
            vary[name] = (*vary.get(name, ()), value)
    return {name: vary[name] for name in OPTIONS if name in vary}


def agreeing(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without a barrier that contradicts a rolling update."""
    rolling = options.get("servers_at_once") is not None
    return {k: v for k, v in options.items() if not (rolling and k == "barrier")}


def unit_of(path: str, options: Mapping[str, Any], limits: Limits) -> str | None:
    """The unit of consumption, given or by default; None if the scheduler has no such option."""
    parameter = inspect.signature(type(load(path, limits, options))).parameters.get("unit")
    return None if parameter is None else options.get("unit", parameter.default)


def accepted(path: str, limits: Limits, options: Mapping[str, Any] | None = None) -> Limits:
    """The limits nearest to these that the scheduler does not refuse.

    A scheduler may need eta at least 1, and ``max_lag`` set or not set.

    Raises:
        Refused: none of those limits will do.
    """
    eta = limits.eta if limits.eta is None else max(limits.eta, 1)
    lag = 2 if limits.max_lag is None else limits.max_lag
    refused = None
    for changes in (
        {},
        {"eta": eta},
        {"max_lag": lag},
        {"max_lag": None},
        {"eta": eta, "max_lag": lag},
        {"eta": eta, "max_lag": None},
        {"eta": eta, "max_lag": max(lag, 1)},
    ):
        candidate = replace(limits, **changes)
        try:
            load(path, candidate, options)
        except ConfigError as exc:
            refused = exc
        else:
            return candidate
    raise Refused(f"{path} refuses all limits tried; last: {refused}")
