"""Schedulers by import path; what is misspelt is answered with the nearest name."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

import areal_sched.schedulers
from areal_sched import ConfigError, Limits, built_in, load
from areal_sched.errors import nearest
from areal_sched.routing import router
from areal_sched.schedulers.areal import Areal
from areal_sched.schedulers.synchronous import Synchronous

LIMITS = Limits(train_batch_rollouts=4, group_size=2, eta=1, max_lag=2)


class NeedsAlpha:
    """A scheduler with an option that has no default, and one given by position."""

    def __init__(self, limits: Limits, beta: int = 3, *, alpha: float) -> None:
        self.given = (limits, beta, alpha)

    def decide(self, event: object, view: object) -> tuple[()]:
        return ()


class TakesAnything:
    """A scheduler that sorts out its options itself."""

    def __init__(self, limits: Limits, **options: Any) -> None:
        self.options = options

    def decide(self, event: object, view: object) -> tuple[()]:
        return ()


not_a_class = NeedsAlpha(LIMITS, alpha=1.0)


def test_every_file_of_the_schedulers_is_built_in_and_can_be_built() -> None:
    files = {
        path.stem
        for path in Path(areal_sched.schedulers.__path__[0]).glob("*.py")
        if path.stem != "__init__"
    }
    assert set(built_in()) == files
    for name, path in built_in().items():
        module, _, cls = path.partition(":")
        expected = getattr(importlib.import_module(module), cls)
        assert type(load(name, LIMITS)) is expected
        assert type(load(path, LIMITS)) is expected
        assert inspect.getdoc(expected)


def test_a_class_of_ones_own_gets_limits_and_options() -> None:
    scheduler: Any = load(f"{__name__}:NeedsAlpha", LIMITS, {"alpha": 0.5})
    assert scheduler.given == (LIMITS, 3, 0.5)
    scheduler = load(f"{__name__}:NeedsAlpha", LIMITS, {"alpha": 0.5, "beta": 4})
    assert scheduler.given == (LIMITS, 4, 0.5)
    scheduler = load(f"{__name__}:TakesAnything", LIMITS, {"gamma": 1})
    assert scheduler.options == {"gamma": 1}
    assert isinstance(load("areal", LIMITS, {}), Areal)
    assert isinstance(load("synchronous", LIMITS, None), Synchronous)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("areel", {}, r"scheduler.class = 'areel': .*module:Class.*did you mean 'areal'"),
        ("in-flight", {}, r"did you mean 'in_flight'"),
        ("", {}, r"scheduler.class = '': expected module:Class \(known: areal, "),
        ("zzzz", {}, r"known: areal, bounded_lag"),
        ("areal:", {}, r"expected module:Class.*did you mean 'areal'"),
        (":Areal", {}, r"scheduler.class = ':Areal': "),
        (".schedulers.areal:Areal", {}, r"scheduler.class = '.schedulers.areal:Areal': "),
        ("no.such.module:X", {}, r"No module named 'no'"),
        (
            "areal_sched.schedulers.arael:Areal",
            {},
            r"did you mean 'areal_sched.schedulers.areal'",
        ),
        ("areal_sched.schedulers.areal:Aral", {}, r"no scheduler 'Aral'.*mean 'Areal'"),
        ("areal_sched.schedulers.areal:Limits", {}, r"no scheduler 'Limits'.*Areal"),
        (f"{__name__}:not_a_class", {}, r"has no scheduler 'not_a_class'"),
        ("areal", {"routin": "least_kv"}, r"scheduler.routin: no such option.*mean 'routing'"),
        ("areal", {"limits": None}, r"scheduler.limits: no such option"),
        ("areal", {"unit": "groups"}, r"scheduler.unit = 'groups' \(did you mean 'group'"),
        ("areal", {"unit": 5}, r"scheduler.unit = 5 \(known: group, rollout\)"),
        ("areal", {"mode": "drian"}, r"scheduler.mode = 'drian' \(did you mean 'drain'"),
        ("areal", {"resume_after": ""}, r"scheduler.resume_after = '' \(known: "),
        ("areal", {"routing": "least_load"}, r"scheduler.routing = .*mean 'least_loaded'"),
        ("areal", {"routing": None}, r"scheduler.routing = None \(known: "),
        ("partial_rollout", {"over_provision": 0.9}, r"over_provision = 0.9: .* number >= 1"),
        ("partial_rollout", {"over_provision": float("inf")}, r"over_provision = inf"),
        ("partial_rollout", {"over_provision": float("nan")}, r"over_provision = nan"),
        ("partial_rollout", {"over_provision": "much"}, r"over_provision = 'much'"),
        ("partial_rollout", {"over_provision": True}, r"over_provision = True"),
        ("in_flight", {"barrier": "no"}, r"scheduler.barrier = 'no': expected true or false"),
        (f"{__name__}:NeedsAlpha", {}, r"scheduler.alpha is missing"),
        (f"{__name__}:NeedsAlpha", {"alhpa": 1}, r"no such option.*mean 'alpha'"),
    ],
)
def test_what_cannot_be_loaded_is_explained(
    path: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(path, LIMITS, options)


@pytest.mark.parametrize(
    ("path", "limits", "message"),
    [
        ("bounded_lag", Limits(train_batch_rollouts=1), "limits.max_lag is not set"),
        ("one_step_off", Limits(train_batch_rollouts=1, eta=0), "limits.eta = 0"),
        ("partial_rollout", Limits(train_batch_rollouts=1, eta=0), "limits.eta = 0"),
    ],
)
def test_limits_that_a_scheduler_cannot_work_with_are_refused(
    path: str, limits: Limits, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(path, limits)


def test_nearest_names_one_or_all() -> None:
    assert nearest("lst", ["least", "most"]) == " (did you mean 'least'?)"
    assert nearest("x", ["b", "a"]) == " (known: a, b)"
    assert nearest("x", []) == ""


def test_router_names() -> None:
    for name in ("least_loaded", "round_robin", "least_kv"):
        assert callable(router(name))
