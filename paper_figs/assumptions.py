"""What the paper leaves open, and how much it matters: Table 1 with it halved and doubled.

Each assumption is listed once, here. All else stays as it is, fitted numbers too, so this is how
far a cell moves, not how far it would be off after fitting anew. AReaL has 8 steps in each cell:
what is below 2 % is noise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from areal_sim.config import RunConfig
from areal_sim.published.rows import LABELS, TABLE_1, System
from areal_sim.published.systems import PRESETS, config_of
from paper_figs.figure import Cell, Made, Results, run
from traces import preset
from traces.lengths import LogNormalGroups

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "What the paper leaves open: change of table 1's hours when it is halved, doubled"

SHOWN: tuple[System, ...] = ("sync", "areal")
STEPS: dict[System, int] = {"verl": 2, "sync": 2, "areal": 8}
FACTORS = (0.5, 2.0)
NAMES = {0.5: "halved", 2.0: "doubled"}

Changes = Callable[[RunConfig, float], list[str]]


@dataclass(frozen=True, slots=True)
class Assumption:
    """``name``, its ``value`` and why; and what to change in a run to multiply it by a factor."""

    name: str
    value: str
    changes: Changes


def _factor(name: str, most: float | None = None) -> Changes:
    def changes(config: RunConfig, factor: float) -> list[str]:
        value = getattr(config.sim.cost.factors, name) * factor
        return [f"sim.cost.{name}={value if most is None else min(most, value)!r}"]

    return changes


def _spread(config: RunConfig, factor: float) -> list[str]:
    assert config.workload.preset is not None
    model = preset(config.workload.preset).model
    assert isinstance(model, LogNormalGroups)
    return [
        f"workload.length.mu={model.mu}",
        f"workload.length.sigma_between={model.sigma_between * factor}",
        f"workload.length.sigma_within={model.sigma_within * factor}",
        f"workload.length_scale={config.workload.length_scale}",
        f"workload.prompt_length.mu={preset(config.workload.preset).prompt_model.mu}",
        f"workload.prompt_length.sigma={preset(config.workload.preset).prompt_model.sigma}",
    ]


def _transfer(config: RunConfig, factor: float) -> list[str]:
    factors = config.sim.cost.factors
    return [
        f"sim.cost.{name}={getattr(factors, name) / factor!r}"
        for name in ("disk_write_bytes_per_s", "disk_read_bytes_per_s")
    ]


ASSUMPTIONS: tuple[Assumption, ...] = (
    Assumption("spread of lengths", f"presets {', '.join(PRESETS.values())}; median kept", _spread),
    Assumption("weight transfer time", "by disk, at the fitted rate", _transfer),
    Assumption(
        "checkpoint pause",
        "14 bytes a parameter at the fitted rate, every 600 s; verl none",
        lambda config, factor: [f"sim.evaluation.save_s={config.sim.evaluation.save_s * factor!r}"],
    ),
    Assumption(
        "reward service time",
        "0.05 s on 128 workers",
        lambda config, factor: [f"sim.rewards.service_s={config.sim.rewards.service_s * factor!r}"],
    ),
    Assumption(
        "a server's overhead per answer", "20 us a step", _factor("server_rollout_overhead_s")
    ),
    Assumption("prefill efficiency", "0.55, at most 1", _factor("prefill_efficiency", 1.0)),
    Assumption(
        "a training step's overhead",
        "5 s: data movement, advantages, logging",
        _factor("train_step_overhead_s"),
    ),
    Assumption("sync: switch of placement", "50 s each way, fitted", _factor("switch_overhead_s")),
    Assumption(
        "14B: GPUs of a server",
        "4; the other models' are published",
        lambda config, factor: (
            [f"sim.server.tensor_parallel={round(4 * factor)}"]
            if config.model is not None and str(config.model.name).endswith("14b")
            else []
        ),
    ),
)


def runs() -> dict[str, RunConfig]:
    """Each row as it is, and with each assumption halved and doubled."""
    found = {}
    for row in TABLE_1:
        for system in SHOWN:
            steps = f"workload.steps={STEPS[system]}"
            base = config_of(row.model, system, [steps])
            found[f"{row.model} {system}"] = base
            for number, assumption in enumerate(ASSUMPTIONS):
                for factor in FACTORS:
                    changes = assumption.changes(base, factor)
                    if changes:
                        found[f"{row.model} {system} {number} {factor}"] = config_of(
                            row.model, system, [steps, *changes]
                        )
    return found


def make(results: Results) -> Made:
    """A matrix: rows are assumptions, columns the cells of Table 1."""

    def moved(model: str, system: System, number: int, factor: float) -> float:
        found = results.get(f"{model} {system} {number} {factor}")
        if found is None:
            return 0.0
        base = results[f"{model} {system}"]["step_time_s"]["mean"]
        return float(found["step_time_s"]["mean"] / base - 1)

    columns = [(row.model, system) for row in TABLE_1 for system in SHOWN]
    cells = []
    text = [
        " " * 42 + "".join(f"{model.upper():>9}" for model, _ in columns),
        " " * 42 + "".join(f"{'AReaL' if s == 'areal' else 'sync':>9}" for _, s in columns),
    ]
    for number, assumption in enumerate(ASSUMPTIONS):
        for factor in FACTORS:
            values = [moved(model, system, number, factor) for model, system in columns]
            name = f"{assumption.name}, {NAMES[factor]}"
            text.append(f"{name:<42}" + "".join(f"{100 * value:>+8.1f}%" for value in values))
            for (model, system), value in zip(columns, values, strict=True):
                cells.append(
                    Cell(
                        name=f"{name}: {model.upper()}, {LABELS[system]}",
                        unit="% of step time",
                        published=None,
                        simulated=100 * value,
                        basis="predicted",
                    )
                )
    text += ["", "assumed:"] + [f"  {one.name}: {one.value}" for one in ASSUMPTIONS]
    return Made(cells=cells, text="\n".join(text), draw=lambda: _draw(moved, columns))


def _draw(
    moved: Callable[[str, System, int, float], float], columns: list[tuple[str, System]]
) -> Figure:
    from analysis.drawing import COLOURS, INK, new_figure

    figure = new_figure(11.0, 4.2)
    panels = figure.subplots(1, len(columns), sharey=True, sharex=True)
    for axes, (model, system) in zip(panels, columns, strict=True):
        for number in range(len(ASSUMPTIONS)):
            for factor, colour in zip(FACTORS, COLOURS, strict=False):
                axes.barh(
                    number + (-0.2 if factor < 1 else 0.2),
                    100 * moved(model, system, number, factor),
                    0.38,
                    color=colour,
                    label=NAMES[factor] if not number else None,
                )
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_title(f"{model.upper()}\n{LABELS[system]}", fontsize=8)
        axes.margins(x=0.15)
    panels[0].set_yticks(range(len(ASSUMPTIONS)), [one.name for one in ASSUMPTIONS], fontsize=8)
    panels[0].invert_yaxis()
    panels[-1].legend(fontsize=7, loc="lower right")
    figure.supxlabel("change of the step time, %", fontsize=9)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    sys.exit(run(__name__))
