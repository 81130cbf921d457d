"""Does a calibrated simulation tell how long generation stands still, all at once and rolling?

    python -m benchmarks.weight_transfer.resimulate --out runs/updates

Two real runs of one set-up with two servers, one with all servers updated at once and one with
``scheduler.servers_at_once = 1``. Costs are fitted to the first alone, and to both; each is used to
simulate both kinds of run. What was not fitted to is a prediction. Runs that are there already are
not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.recorder import SERVER_ACTIVITIES, RunRecorder, read_run
from analysis.rundir import JOURNAL, SUMMARY
from areal_sched.errors import ArealError
from benchmarks.measured import ROOT
from benchmarks.weight_transfer.updates import DataError, standstill

NS = 1e-9
SERVERS = 2
START_UP_STEPS = 2
"""Left out of what is compared: servers fill up, and groups are opened."""

KINDS = {"all at once": {}, "rolling": {"scheduler.servers_at_once": "1"}}
STILL = ("load", "paused")

SET_UP = {
    "scheduler.class": "areal",
    "scheduler.barrier": "false",
    "scheduler.unit": "rollout",
    "workload.prompts_per_step": "4",
    "workload.group_size": "4",
    "limits.max_rollouts_in_flight": "32",
    "real.server.count": f"{SERVERS}",
    "real.server.max_running_rollouts": "16",
    "real.warm_start.steps": "0",
    "real.evaluation.every_steps": "inf",
    "real.evaluation.problems": "4",
    "real.checkpoint_every_steps": "1000",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Standstill:
    """What updates cost a run, for each of its steps.

    Attributes:
        step_s: a training step.
        load_s: of all servers together, loading.
        still_s: loading, or waiting to be resumed, of all servers together.
        all_still_s: time in which every server did so.
    """

    step_s: float
    load_s: float
    still_s: float
    all_still_s: float

    @property
    def share(self) -> float:
        """Of the servers' time in which they stood still."""
        return self.still_s / (SERVERS * self.step_s)


def standstill_of(recorder: RunRecorder) -> Standstill:
    """Of a run, its start-up left out.

    Raises:
        DataError: it has too few steps.
    """
    settled = recorder.trained_batches()["settled_ns"]
    steps = len(settled) - START_UP_STEPS
    if steps < 1:
        raise DataError(f"{len(settled)} training steps: expected more than {START_UP_STEPS}")
    start_ns, end_ns = int(settled[START_UP_STEPS - 1]), int(settled[-1])
    columns = recorder.server_spans
    spans: list[list[tuple[str, int, int]]] = [[] for _ in range(SERVERS)]
    for server, activity, start, end in zip(
        columns["server_id"],
        columns["activity"],
        columns["start_ns"],
        columns["end_ns"],
        strict=True,
    ):
        spans[int(server)].append((SERVER_ACTIVITIES[int(activity)], int(start), int(end)))

    def only(*activities: str) -> tuple[int, int]:
        shown = [
            [(a if a in activities else "generate", start, end) for a, start, end in server]
            for server in spans
        ]
        return standstill(shown, start_ns, end_ns)

    still_ns, all_still_ns = only(*STILL)
    scale = NS / steps
    return Standstill(
        step_s=(end_ns - start_ns) * scale,
        load_s=only("load")[0] * scale,
        still_s=still_ns * scale,
        all_still_s=all_still_ns * scale,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, calibrate, simulate, print.

    Returns:
        0, or 2 where something went wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.weight_transfer.resimulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--size", default="26M", help="of the model")
    parser.add_argument("--steps", type=int, default=12, help="training steps of a run")
    parser.add_argument("--method", choices=("disk", "collective"), default="collective")
    args = parser.parse_args(arguments)
    try:
        _all(args.out, args.size, args.steps, args.method)
    except (ArealError, OSError) as error:
        print(f"resimulate: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"resimulate: {' '.join(map(str, error.cmd))}: {error}", file=sys.stderr)
        return 2
    return 0


def _all(out: Path, size: str, steps: int, method: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    real = {kind: out / kind.replace(" ", "-") for kind in KINDS}
    for kind, folder in real.items():
        if not (folder / SUMMARY).is_file():
            _run_real(folder, out / "model", size, steps, method, KINDS[kind])
    measured = {kind: standstill_of(read_run(real[kind] / JOURNAL)) for kind in KINDS}
    first, *_ = real.values()
    rows = []
    for name, sources in (("all at once", [first]), ("both", list(real.values()))):
        config = out / f"fitted-to-{name.replace(' ', '-')}.toml"
        costs = config.with_name(f"{config.stem}-costs.toml")
        _command("areal_sim", "calibrate", *sources, "--out", costs, "--config", config)
        for kind, more in KINDS.items():
            folder = out / f"{config.stem}-{kind.replace(' ', '-')}"
            if not (folder / SUMMARY).is_file():
                overrides = [x for key, value in more.items() for x in ("--set", f"{key}={value}")]
                _command("areal_sim", "run", config, "--quiet", "--out", folder, *overrides)
            fitted = kind == name or name == "both"
            rows.append((name, kind, fitted, standstill_of(read_run(folder / JOURNAL))))
    _print(f"{size}, {method}, {SERVERS} servers", measured, rows)


def _run_real(
    folder: Path, model: Path, size: str, steps: int, method: str, more: dict[str, str]
) -> None:
    from areal_real.tasks.arithmetic import CHARACTERS
    from areal_real.tasks.model import write_model
    from areal_real.tasks.tokenizer import CharTokenizer
    from benchmarks.weight_transfer.lab import SEED, SHAPES

    if size not in SHAPES:
        raise DataError(f"--size {size}: known: {', '.join(SHAPES)}")
    tokenizer = CharTokenizer(CHARACTERS)
    write_model(
        model,
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        seed=SEED,
        shape=SHAPES[size],
    )
    keys = {
        **SET_UP,
        **more,
        "workload.steps": f"{steps}",
        "real.model.path": f"{model.resolve()}",
        "real.server.weight_transfer": method,
    }
    overrides = [x for key, value in keys.items() for x in ("--set", f"{key}={value}")]
    config = ROOT / "configs" / "real" / "tiny-cpu.toml"
    _command("areal_real", "train", config, "--out", folder, "--overwrite", "--quiet", *overrides)


def _command(package: str, *arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", f"{package}.cli", *map(str, arguments)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _print(
    title: str,
    measured: dict[str, Standstill],
    rows: list[tuple[str, str, bool, Standstill]],
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{title}; for each step, seconds", title_justify="left")
    for heading in ("run", "costs fitted to", ""):
        table.add_column(heading)
    for heading in ("step", "servers load", "stand still", "of their time", "all stand still"):
        table.add_column(heading, justify="right")
    for kind, found in measured.items():
        table.add_row(kind, "", "measured", *_shown(found))
        for name, simulated, fitted, predicted in rows:
            if simulated == kind:
                word = "fitted" if fitted else "predicted"
                table.add_row("", name, word, *_shown(predicted))
    Console(highlight=False, width=140).print(table)


def _shown(found: Standstill) -> tuple[str, ...]:
    return (
        f"{found.step_s:.2f}",
        f"{found.load_s:.3f}",
        f"{found.still_s:.3f}",
        f"{found.share:.1%}",
        f"{found.all_still_s:.3f}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
