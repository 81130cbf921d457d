"""The simulator: an executor on SimPy, and the cost models it runs on.

``areal_sim.simulate`` simulates a configuration from Python, for notebooks above all; see
`areal_sim.notebook`. It is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from areal_sim.notebook import Run, simulate

__all__ = ["Run", "simulate"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from areal_sim import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
