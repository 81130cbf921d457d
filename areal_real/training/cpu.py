"""Megatron-Core on a machine without CUDA.

Megatron names CUDA outright: buffers are made on device "cuda", the current CUDA device and its
random state are asked for, and the optimizer compares type names with "torch.cuda.FloatTensor".
`enable` gives its modules a `torch` whose ``cuda`` part answers for the CPU, and rewrites those
constants in its functions. Nothing outside Megatron is touched. With CUDA it does nothing.

It holds for Megatron-Core 0.16; a version that names CUDA elsewhere fails loudly, because torch
without CUDA refuses the device.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

REWRITTEN = (
    "megatron.core.distributed.distributed_data_parallel",
    "megatron.core.distributed.finalize_model_grads",
    "megatron.core.distributed.param_and_grad_buffer",
    "megatron.core.models.common.language_module.language_module",
    "megatron.core.optimizer",
    "megatron.core.optimizer.clip_grads",
    "megatron.core.optimizer.distrib_optimizer",
    "megatron.core.optimizer.optimizer",
    "megatron.core.pipeline_parallel.p2p_communication",
    "megatron.core.pipeline_parallel.schedules",
    "megatron.core.tensor_parallel.random",
    "megatron.core.utils",
)
"""Modules whose functions hold CUDA constants on the path of a training step."""

MOVING = "megatron.core.models.common.language_module.language_module"
"""Module whose functions call ``tensor.cuda()``."""

CONSTANTS = {
    "cuda": "cpu",
    "torch.cuda.FloatTensor": "torch.FloatTensor",
    "torch.cuda.HalfTensor": "torch.HalfTensor",
    "torch.cuda.BFloat16Tensor": "torch.BFloat16Tensor",
}


@cache
def enable() -> None:
    """Make Megatron run on this machine; safe to call again."""
    if torch.cuda.is_available():
        return
    with _without_compiler():
        for name in REWRITTEN:
            importlib.import_module(name)
    stand_in = types.ModuleType("torch")
    stand_in.__dict__.update(torch.__dict__)
    stand_in.__dict__["cuda"] = _Cuda()
    for name, module in list(sys.modules.items()):
        if name.split(".")[:2] == ["megatron", "core"] and module.__dict__.get("torch") is torch:
            module.__dict__["torch"] = stand_in
    for name in REWRITTEN:
        for function in set(_functions(sys.modules[name])):
            code = _rewritten(function.__code__)
            if name == MOVING:
                names = tuple("cpu" if used == "cuda" else used for used in code.co_names)
                code = code.replace(co_names=names)
            function.__code__ = code
    random = importlib.import_module("megatron.core.tensor_parallel.random")
    random.__dict__["_get_cuda_rng_state"] = lambda *_, **__: torch.get_rng_state()
    random.__dict__["_set_cuda_rng_state"] = lambda state, *_, **__: torch.set_rng_state(state)


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Let Megatron define its fused functions uncompiled.

    None of them is used here, and the compiler takes longer to import than all of Megatron.
    """
    compiler = torch.compile
    torch.compile = lambda function: function
    try:
        yield
    finally:
        torch.compile = compiler


class _Cuda:
    """What Megatron asks of `torch.cuda`, answered for the CPU; anything else is the real one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cuda, name)

    @staticmethod
    def current_device() -> torch.device:
        return torch.device("cpu")

    @staticmethod
    def synchronize(*_: object) -> None:
        pass

    @staticmethod
    def get_rng_state(*_: object) -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, *_: object) -> None:
        torch.set_rng_state(state)


def _functions(module: types.ModuleType) -> Iterator[types.FunctionType]:
    """Functions and methods written in a module, also those inside decorators."""
    for value in vars(module).values():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        members = vars(value).values() if isinstance(value, type) else (value,)
        for member in members:
            found: Any = member
            if isinstance(member, classmethod | staticmethod):
                found = member.__func__
            elif isinstance(member, property):
                found = member.fget
            while isinstance(wrapped := getattr(found, "__wrapped__", None), Callable):  # type: ignore[arg-type]
                found = wrapped
            if isinstance(found, types.FunctionType):
                yield found


def _rewritten(code: types.CodeType) -> types.CodeType:
    return code.replace(co_consts=tuple(map(_constant, code.co_consts)))


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _rewritten(value)
    if type(value) is tuple:
        return tuple(map(_constant, value))
    return CONSTANTS.get(value, value) if isinstance(value, str) else value
