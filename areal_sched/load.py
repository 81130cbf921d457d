"""Schedulers by import path: no registry, no plug-in magic."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, cast

from areal_sched import schedulers
from areal_sched.controller import Scheduler
from areal_sched.errors import ConfigError, nearest
from areal_sched.limits import Limits


def built_in() -> dict[str, str]:
    """Short name to import path of the schedulers shipped here: module ``a_b`` holds ``AB``."""
    return {
        info.name: f"{schedulers.__name__}.{info.name}:{info.name.title().replace('_', '')}"
        for info in pkgutil.iter_modules(schedulers.__path__)
        if not info.name.startswith("_")
    }


def load(path: str, limits: Limits, options: Mapping[str, Any] | None = None) -> Scheduler:
    """Build a scheduler.

    Args:
        path: ``module:Class``, or the name of a built-in one (``areal``, ``synchronous``, ...).
        limits: handed to the class as its first argument.
        options: its further keyword arguments, ``[scheduler]`` in a configuration.

    Raises:
        ConfigError: no such module, class or option; the message names the nearest.
    """
    known = built_in()
    full = known.get(path, path)
    module_name, _, class_name = full.partition(":")
    if not class_name:
        raise ConfigError(
            f"scheduler.class = {path!r}: expected module:Class{nearest(path, known)}"
        )
    try:
        module = importlib.import_module(module_name)
    except (ImportError, TypeError, ValueError) as exc:  # the latter two: ".relative" and ""
        modules = [x.partition(":")[0] for x in known.values()]
        hint = nearest(module_name, modules) if module_name.startswith("areal_sched.") else ""
        raise ConfigError(f"scheduler.class = {path!r}: {exc}{hint}") from None
    cls: Any = getattr(module, class_name, None)
    if not inspect.isclass(cls) or not hasattr(cls, "decide"):
        classes = [n for n, x in vars(module).items() if hasattr(x, "decide")]
        raise ConfigError(
            f"scheduler.class = {path!r}: {module_name} has no scheduler {class_name!r}"
            + nearest(class_name, classes)
        )
    options = dict(options or {})
    parameters = list(inspect.signature(cls).parameters.values())[1:]
    names = [p.name for p in parameters]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in options:
            if name not in names:
                raise ConfigError(f"scheduler.{name}: no such option{nearest(name, names)}")
    for p in parameters:
        variadic = p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        if p.default is p.empty and not variadic and p.name not in options:
            raise ConfigError(f"scheduler.{p.name} is missing: {path} needs it")
    build = cast(Callable[..., Scheduler], cls)
    return build(limits, **options)
