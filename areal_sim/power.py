"""What a GPU and its share of a node draw, and what renting one costs: one table, with sources.

Three things to keep in mind when reading a result made from it:

- ``busy_watts`` is the board power of the maker's data sheet. It is an upper bound: decoding reads
  memory and seldom comes near it, and a node of 8 H100 near full use drew 18 % less than its rating
  (arXiv 2412.08602).
- ``idle_watts`` is of a GPU that waits with a model loaded. That is more than the 35 to 72 W of an
  empty one, since a CUDA context alone keeps the clock at its maximum (arXiv 2605.23918).
- Prices are list prices of one day. They differ by a factor of four between vendors, and change.

``[cluster]`` of a configuration replaces each of them. ``python -m areal_sim.power`` prints the
table of the documentation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

from areal_sched.errors import ConfigError

Basis = Literal["data sheet", "measured", "list price", "assumed"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number: value, unit, and how far to trust it.

    Attributes:
        value: in `unit`.
        unit: ``W`` or ``USD/h``.
        basis: ``data sheet``: the maker's; ``measured``: by whom the source says; ``list price``:
            on demand, one GPU, seen when the source says; ``assumed``: none of these.
        source: where it comes from.
    """

    value: float
    unit: str
    basis: Basis
    source: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuPower:
    """Power and price of one GPU model.

    Attributes:
        busy_watts: board power of the data sheet, watts; an upper bound.
        idle_watts: of a GPU that waits with a model loaded, watts.
        host_watts: share of one GPU in processors, memory, fans and network of its node, watts.
        usd_per_hour: rent of one GPU on demand, USD an hour; electricity is in it.

    Raises:
        ConfigError: a value is not positive, or an idle GPU would draw more than a busy one.
    """

    busy_watts: Figure
    idle_watts: Figure
    host_watts: Figure
    usd_per_hour: Figure

    def __post_init__(self) -> None:
        for name, figure in self.figures():
            if not figure.value > 0:
                raise ConfigError(f"{name} = {figure.value!r}: must be positive")
        if self.idle_watts.value > self.busy_watts.value:
            raise ConfigError(
                f"idle_watts = {self.idle_watts.value!r}: must be at most busy_watts ="
                f" {self.busy_watts.value!r}"
            )

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """(name, figure) of each, in order."""
        for field in dataclasses.fields(self):
            yield field.name, getattr(self, field.name)


POWER_USAGE_EFFECTIVENESS = 1.0
"""Power of the site over power of its computers. Assumed: 1, so that energy is what a meter at the
nodes would show, since the site is not part of the model. Published: 1.58 is the average of Uptime
Institute's survey of 2023, and sites of the largest operators report 1.1 to 1.2."""

ASSUMED_IDLE_SHARE = 0.2
"""Idle power as a share of board power, for a GPU that nobody reports on. Assumed: A100 idles at a
fifth (arXiv 2308.12908 and 2605.23918), H100 at 0.17, B200 at 0.19, L40S at 0.29."""

_HGX_HOST = Figure(
    value=350.0,
    unit="W",
    basis="assumed",
    source=(
        "most that a node of 8 H100 drew in training, 8.4 kW (arXiv 2412.08602), less the board"
        " power of its GPUs: (8400 - 8 * 700) / 8. Other nodes with NVLink are taken to be alike"
    ),
)
_PCIE_HOST = Figure(
    value=70.0,
    unit="W",
    basis="assumed",
    source=(
        "a server with 4 RTX 4090 at full load, 2080 W at its power supplies (server-gear.com),"
        " less the power of its GPUs: (2080 - 4 * 450) / 4. Other servers with PCI Express cards"
        " are taken to be alike"
    ),
)

_PARKED = "with a CUDA context, no work (arXiv 2605.23918)"
_AS_H100 = "taken as H100's, the same chip: 121.7 W with a CUDA context (arXiv 2605.23918)"
_RUNPOD = "RunPod Secure Cloud, on demand (runpod.io/pricing)"


def _busy(watts: float, source: str) -> Figure:
    return Figure(value=float(watts), unit="W", basis="data sheet", source=source)


def _idle(watts: float, basis: Basis, source: str) -> Figure:
    return Figure(value=watts, unit="W", basis=basis, source=source)


def _price(usd_per_hour: float, basis: Basis, source: str) -> Figure:
    return Figure(value=usd_per_hour, unit="USD/h", basis=basis, source=source)


def _row(busy: Figure, idle: Figure, host: Figure, price: Figure) -> GpuPower:
    return GpuPower(busy_watts=busy, idle_watts=idle, host_watts=host, usd_per_hour=price)


GPU_POWER: dict[str, GpuPower] = {
    "A100-40GB": _row(
        _busy(400, "NVIDIA A100 data sheet (SXM4)"),
        _idle(80.0, "measured", f"A100 80 GB {_PARKED}; taken for 40 GB too"),
        _HGX_HOST,
        _price(1.99, "list price", "Lambda, on demand (lambda.ai/pricing), seen November 2026"),
    ),
    "A100-80GB": _row(
        _busy(400, "NVIDIA A100 data sheet (SXM4)"),
        _idle(80.0, "measured", f"A100 80 GB {_PARKED}"),
        _HGX_HOST,
        _price(1.59, "list price", f"{_RUNPOD}, seen August 2026"),
    ),
    "H100": _row(
        _busy(700, "NVIDIA H100 data sheet (SXM5)"),
        _idle(121.7, "measured", f"H100 80 GB {_PARKED}"),
        _HGX_HOST,
        _price(3.49, "list price", f"{_RUNPOD}, seen October 2026"),
    ),
    "H800": _row(
        _busy(700, "NVIDIA H800 data sheet (SXM5)"),
        _idle(121.7, "assumed", _AS_H100),
        _HGX_HOST,
        _price(3.49, "assumed", "not for rent in public; taken as H100's"),
    ),
    "H200": _row(
        _busy(700, "NVIDIA H200 data sheet (SXM5)"),
        _idle(121.7, "assumed", _AS_H100),
        _HGX_HOST,
        _price(4.59, "list price", f"{_RUNPOD}, seen October 2026"),
    ),
    "H20": _row(
        _busy(400, "NVIDIA H20 product brief"),
        _idle(121.7, "assumed", _AS_H100),
        _HGX_HOST,
        _price(3.49, "assumed", "not for rent in public outside China; taken as H100's"),
    ),
    "B200": _row(
        _busy(1000, "NVIDIA HGX B200 data sheet"),
        _idle(
            192.0,
            "measured",
            "nvidia-smi of a B200 with a model loaded and no work (issue 10278 of"
            " NVIDIA/TensorRT-LLM)",
        ),
        _HGX_HOST,
        _price(6.79, "list price", f"{_RUNPOD}, seen October 2026"),
    ),
    "L40S": _row(
        _busy(350, "NVIDIA L40S data sheet"),
        _idle(102.1, "measured", f"L40S {_PARKED}"),
        _PCIE_HOST,
        _price(0.79, "list price", "RunPod, its lowest tier, seen March 2026"),
    ),
    "A40": _row(
        _busy(300, "NVIDIA A40 data sheet"),
        _idle(
            110.0,
            "measured",
            "about 110 W with data loaded and no work (issue 874 of"
            " NVIDIA/open-gpu-kernel-modules)",
        ),
        _PCIE_HOST,
        _price(0.44, "list price", f"{_RUNPOD}, seen August 2026"),
    ),
    "RTX4090": _row(
        _busy(450, "NVIDIA GeForce RTX 4090 specifications: total graphics power"),
        _idle(
            ASSUMED_IDLE_SHARE * 450,
            "assumed",
            f"{ASSUMED_IDLE_SHARE:g} of the board power, about what others draw",
        ),
        _PCIE_HOST,
        _price(0.34, "list price", "RunPod, its lowest tier, seen March 2026"),
    ),
}
"""Power and price by the name that a GPU has in configuration files."""


def reference_table() -> str:
    """The tables of ``docs/guides/cost-and-energy.md``, in Markdown: numbers, then sources."""
    lines = [
        "| GPU | busy, W | idle, W | host share, W | rent, USD an hour |",
        "|---|---|---|---|---|",
    ]
    for name, power in GPU_POWER.items():
        cells = (f"{figure.value:g} ({figure.basis})" for _, figure in power.figures())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| number | of | source |", "|---|---|---|"]
    users: dict[tuple[str, str], list[str]] = {}
    for field in dataclasses.fields(GpuPower):
        for name, power in GPU_POWER.items():
            source = getattr(power, field.name).source
            users.setdefault((field.name, source), []).append(name)
    lines += [
        f"| `{number}` | {', '.join(names)} | {source} |"
        for (number, source), names in users.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference_table(), end="")
