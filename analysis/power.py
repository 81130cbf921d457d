"""Energy and money of a run, from its GPU time by cause and what one GPU draws and costs.

Energy is ``power_usage_effectiveness`` times the sum over causes of GPU time times watts: busy or
idle watts of the GPU, by cause, and its share of the node. Cost is the time of all GPUs, used or
not, times the price.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from analysis.causes import CAUSE
from analysis.errors import AnalysisError

_NS_PER_S = 10**9
_NS_PER_HOUR = 3600 * _NS_PER_S
J_PER_KWH = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What one GPU of a run draws and costs. None: not known.

    Attributes:
        busy_watts: of a GPU that works, watts. Usually the data sheet's, which is an upper bound.
        idle_watts: of a GPU that waits, is down or is not used, watts.
        host_watts_per_gpu: its share of what the rest of its node draws at all times, watts.
        power_usage_effectiveness: power of the site over power of its nodes, at least 1.
        usd_per_gpu_hour: rent of one GPU, USD an hour.

    Raises:
        AnalysisError: a value is no number or out of range; the message names it.
    """

    busy_watts: float | None = None
    idle_watts: float | None = None
    host_watts_per_gpu: float | None = None
    power_usage_effectiveness: float | None = None
    usd_per_gpu_hour: float | None = None

    def __post_init__(self) -> None:
        """Check each value."""
        for field in fields(self):
            value = getattr(self, field.name)
            least = 1 if field.name == "power_usage_effectiveness" else 0
            if value is None:
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < least:
                raise AnalysisError(
                    f"run.power.{field.name} = {value!r}: expected a number >= {least}, or null"
                )

    @classmethod
    def from_header(cls, stated: object) -> Power | None:
        """Read ``run.power`` of a journal's header. Older journals and real runs have none.

        Keys that are missing count as not known, and keys of later versions are passed over.

        Raises:
            AnalysisError: it is no mapping, or a value is wrong.
        """
        if stated is None:
            return None
        if not isinstance(stated, Mapping):
            raise AnalysisError(f"run.power = {stated!r}: expected a mapping")
        return cls(**{field.name: stated.get(field.name) for field in fields(cls)})

    def watts(self, cause: str) -> float | None:
        """Power at the site of one GPU that spends its time on a cause, watts; None if unknown.

        Idle causes and ``unused`` are at `idle_watts`, all others at `busy_watts`.
        """
        gpu = self.busy_watts if CAUSE[cause].busy else self.idle_watts
        if gpu is None or self.host_watts_per_gpu is None or self.power_usage_effectiveness is None:
            return None
        return self.power_usage_effectiveness * (gpu + self.host_watts_per_gpu)

    def energy_j(self, gpu_ns: Mapping[str, int]) -> float | None:
        """Energy of a window, joules; None if a number it needs is not known.

        Args:
            gpu_ns: GPU-nanoseconds by cause, as in `analysis.accounts.Accounts`.
        """
        parts = []
        for cause, spent_ns in gpu_ns.items():
            watts = self.watts(cause)
            if watts is None:
                return None
            parts.append(spent_ns / _NS_PER_S * watts)
        return math.fsum(parts)

    def cost_usd(self, gpu_ns: Mapping[str, int]) -> float | None:
        """Rent of a window, USD; None if the price is not known. Arguments as for `energy_j`."""
        if self.usd_per_gpu_hour is None:
            return None
        return sum(gpu_ns.values()) / _NS_PER_HOUR * self.usd_per_gpu_hour


def power_summary(
    power: Power | None, gpu_ns: Mapping[str, int], trained_tokens: int
) -> dict[str, Any]:
    """The keys of a summary that tell of money and energy; each is None where unknown.

    Args:
        power: what one GPU draws and costs.
        gpu_ns: GPU-nanoseconds by cause, of the whole run and all GPUs of the cluster.
        trained_tokens: generated tokens of the trajectories it trained.
    """
    cost_usd = power.cost_usd(gpu_ns) if power else None
    energy_j = power.energy_j(gpu_ns) if power else None
    return {
        "cost_usd": cost_usd,
        "usd_per_million_trained_tokens": _ratio(cost_usd, trained_tokens / 1e6),
        "energy_kwh": None if energy_j is None else energy_j / J_PER_KWH,
        "energy_j_per_trained_token": _ratio(energy_j, trained_tokens),
    }


def _ratio(part: float | None, whole: float) -> float | None:
    return None if part is None or not whole else part / whole
