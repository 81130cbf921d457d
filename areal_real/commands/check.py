"""``areal-real check``: what this machine can run, and what is missing."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from areal_sched.config.overrides import add_overrides

if TYPE_CHECKING:
    from areal_real.check import Finding, Verdict
    from areal_real.config import RealConfig
    from areal_real.machine import Machine

READY = Path(__file__).resolve().parents[2] / "configs" / "real"
"""The ready configurations."""

SMALLEST = "tiny-cpu"
"""The one that every machine is measured by where none is named."""

_COLOURS = {"ok": "green", "note": "yellow", "missing": "red"}


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "check",
        help="what this machine can run, and what is missing",
        description="Hold this machine against a run: programs, memory, disk, GPUs, ports. With "
        "CONFIG.toml also the run's shape: batch, longest trajectory, parallel layout and memory, "
        "from the model's config.json. Without, which of the ready configurations can run here. "
        "Nothing is started. Exit status: 0 if it can run here (without CONFIG.toml: if the tiny "
        "run on the CPU can), 1 if not, 2 if the configuration is wrong.",
    )
    parser.add_argument("config", type=Path, nargs="?", metavar="CONFIG.toml")
    add_overrides(parser, example="real.server.count=2")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where the run's directory would be: its disk is looked at (default: %(default)s)",
    )
    parser.add_argument(
        "--shape-only",
        action="store_true",
        help="exit status 0 if the shape is right, whatever this machine is",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON alone")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    from areal_real.check import judge
    from areal_real.config import load_config

    path = args.config or READY / f"{SMALLEST}.toml"
    config = load_config(path, args.overrides)
    machine = look_for(config, args.out)
    verdict = judge(config, machine)
    others = {} if args.config else _others(path, machine)
    if args.json:
        json.dump(_as_json(path, verdict, others), sys.stdout, indent=2)
        print()
    else:
        _print(path, verdict, others)
    return 0 if (verdict.shape_fits if args.shape_only else verdict.fits) else 1


def look_for(config: RealConfig, folder: Path) -> Machine:
    """Look at this machine, and at what a run asks of it."""
    from areal_real.check import WANTED, WANTED_ON_GPUS
    from areal_real.machine import look
    from areal_real.placement.roles import LOOPBACK

    return look(folder, (*WANTED, *WANTED_ON_GPUS), host=LOOPBACK, ports=_ports(config))


def _ports(config: RealConfig) -> int:
    """Ports that this run asks for, as far as they are tried."""
    from areal_real.check import MOST_PORTS
    from areal_real.config.needs import needs_of

    return min(needs_of(config, None).ports, MOST_PORTS)


def _others(smallest: Path, machine: Machine) -> dict[str, Verdict]:
    """The ready configurations, by name, on this machine."""
    from areal_real.check import judge
    from areal_real.config import load_config
    from areal_real.machine import free_ports
    from areal_real.placement.roles import LOOPBACK

    verdicts = {}
    for path in sorted(smallest.parent.glob("*.toml")):
        config = load_config(path)
        there = dataclasses.replace(machine, ports=free_ports(LOOPBACK, _ports(config)))
        verdicts[path.stem] = judge(config, there)
    return verdicts


# ---- what is printed ---------------------------------------------------------------------------


def _as_json(path: Path, verdict: Verdict, others: dict[str, Verdict]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "config": str(path),
        "fits": verdict.fits,
        "shape_fits": verdict.shape_fits,
        "needs": dataclasses.asdict(verdict.needs),
        "findings": [dataclasses.asdict(finding) for finding in verdict.findings],
    }
    if others:
        result["ready"] = {
            name: {"fits": one.fits, "missing": [x.subject for x in _missing(one)]}
            for name, one in others.items()
        }
    return result


def _print(path: Path, verdict: Verdict, others: dict[str, Verdict]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    titles = {"shape": f"The run: {path.name}", "machine": "This machine"}
    for part, title in titles.items():
        table = Table(title=title, title_justify="left", title_style="bold")
        for heading in ("", "found", "wanted", ""):
            table.add_column(heading, overflow="fold")
        for finding in verdict.findings:
            if finding.part == part:
                table.add_row(*_row(finding))
        if others and part == "shape":
            continue  # no configuration was named: its shape is not the question
        console.print(table)
    if others:
        table = Table(title="What it can run", title_justify="left", title_style="bold")
        for heading in ("configuration", "", "missing"):
            table.add_column(heading, overflow="fold")
        for name, one in others.items():
            answer = "[green]yes[/]" if one.fits else "[red]no[/]"
            table.add_row(name, answer, ", ".join(_short(x) for x in _missing(one)))
        console.print(table)
    console.print(_sentence(path, verdict), soft_wrap=True, highlight=False, markup=False)


def _row(finding: Finding) -> Sequence[Any]:
    from rich.text import Text

    status = Text(finding.status, style=_COLOURS[finding.status])
    return Text(finding.subject), Text(finding.found), Text(finding.wanted), status


def _missing(verdict: Verdict) -> tuple[Finding, ...]:
    return (*verdict.missing("shape"), *verdict.missing("machine"))


def _short(finding: Finding) -> str:
    """What is missing, in few words."""
    if finding.subject in ("GPUs", "nodes"):
        return f"{finding.subject}: {finding.found.partition(' ')[0]} of {finding.wanted}".replace(
            ",", ""
        )
    return finding.subject


def _sentence(path: Path, verdict: Verdict) -> str:
    """The result in one sentence."""
    name = path.stem
    if verdict.fits:
        return f"{name} can run here."
    if not verdict.shape_fits:
        parts = ", ".join(x.subject for x in verdict.missing("shape"))
        return f"{name} cannot run anywhere as it is: {parts}."
    lacking = ", ".join(_short(x) for x in verdict.missing("machine"))
    return f"The shape of {name} is right. It cannot run here; missing: {lacking}."
