"""Whether a long real run holds ever more: memory, file descriptors, files.

    python -m benchmarks.soak                    # 200 short steps: five to ten minutes on two cores
    python -m benchmarks.soak --engine ray       # servers and trainer as actors of Ray
    python -m benchmarks.soak --judge runs/soak  # the samples of an earlier soak once more

Starts ``areal-real train configs/real/tiny-cpu.toml`` as a process of its own, with settings that
make steps short, and looks at it from outside: at each finished step and every other second, all
processes of the run with psutil, its directory, its temporary files and its shared memory. Then
each gets a slope over the steps after warm-up and a verdict against a stated limit.

Written into ``--out``: ``samples.jsonl``, ``soak.txt`` (the tables), ``soak.json``, ``soak.png``,
``run.log`` and the run directory ``run``. Exit code 1 if a limit is broken or the run failed, 2 for
bad input. Ctrl-C ends the run after the step in progress, and what there is is judged.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measured import ROOT
from benchmarks.soak_picture import draw
from benchmarks.soak_samples import Sample, Sampler, bytes_below, read_samples
from benchmarks.soak_verdicts import (
    BLOCK_STEPS,
    LEAST_BLOCKS,
    WARM_UP_STEPS,
    Row,
    judge,
    passing,
    text_of,
)

CONFIG = ROOT / "configs" / "real" / "tiny-cpu.toml"

SETTINGS = {
    "workload.prompts_per_step": "4",
    "workload.group_size": "4",
    "limits.max_rollouts_in_flight": "32",
    "real.checkpoint_every_steps": str(BLOCK_STEPS),
    "real.warm_start.steps": "20",
    "real.evaluation.every_steps": "inf",
    "real.evaluation.problems": "8",
}
"""What makes a step take a second or two."""

LOOK_S = 0.1
"""From one look for a finished step to the next."""

SAMPLE_S = 2.0
"""At the latest so long after a sample comes the next."""

END_S = 30.0
"""So long after the end of the run its processes may take to end."""


class Steps:
    """Counts the finished steps of a run, by the lines of its ``metrics.jsonl``."""

    def __init__(self, run: Path) -> None:
        self._path = run / "metrics.jsonl"
        self._read = 0
        self.done = 0

    def look(self) -> int:
        """Count anew: only what has come since."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
            self._read += len(new)
            self.done += new.count(b"\n")
        return self.done


class Interrupts:
    """Ctrl-C and SIGTERM, counted: the first ends the run in good order, the second kills it."""

    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def counted(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """While this lasts, neither raises or ends this process."""

        def heard(number: int, frame: object) -> None:
            self.count += 1
            process.send_signal(signal.SIGINT if self.count == 1 else signal.SIGKILL)

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, heard) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def watch(
    process: subprocess.Popen[bytes],
    sampler: Sampler,
    steps: Steps,
    samples_file: Path,
    show: Callable[[int], None],
) -> list[Sample]:
    """Sample until the process ends.

    Args:
        process: the run's own.
        sampler: of it.
        steps: of it.
        samples_file: takes a line for each sample, at once.
        show: told of the finished steps.
    """
    samples: list[Sample] = []
    next_s = 0.0
    with samples_file.open("w", encoding="utf-8") as file:
        while process.poll() is None:
            before, done = steps.done, steps.look()
            if done > before or time.monotonic() >= next_s:
                sample = sampler.take(done)
                next_s = time.monotonic() + SAMPLE_S
                if sample.processes:  # none if it has just ended
                    samples.append(sample)
                    file.write(json.dumps(sample.to_json()) + "\n")
                    file.flush()
                show(done)
            time.sleep(LOOK_S)
    return samples


def left_behind(sampler: Sampler, temporary: Path) -> list[str]:
    """What is still there after the end of a run: processes, shared memory, files with content.

    Processes that do not end in `END_S` are killed.
    """
    end_s = time.monotonic() + END_S
    while (alive := sampler.alive()) and time.monotonic() < end_s:
        time.sleep(LOOK_S)
    for pid in alive.values():
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).kill()
    found = [f"process {name}" for name in alive]
    found += [str(path) for path in sorted(sampler.shared_files) if path.exists()]
    files = sorted(temporary.iterdir())
    return found + [f"temporary {path.name}" for path in files if bytes_below(path)]


@contextlib.contextmanager
def bar(steps: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; yields what to tell the finished steps."""
    if quiet:
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("soak"), BarColumn(bar_width=24), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console
    ) as progress:
        task = progress.add_task("soak", total=steps)
        yield lambda done: progress.update(task, completed=done)


def command_of(args: argparse.Namespace) -> list[str]:
    """The run's command line."""
    settings = [*(f"{key}={value}" for key, value in SETTINGS.items()), *args.set]
    return [
        *(sys.executable, "-m", "areal_real.cli", "train", str(CONFIG), "--quiet"),
        *("--out", str(args.out / "run"), "--engine", args.engine, "--name", "soak"),
        *(x for each in settings for x in ("--set", each)),
        *("--set", f"workload.steps={args.steps}"),
    ]


def soak(args: argparse.Namespace) -> tuple[list[Sample], list[str], int, bool]:
    """Run and sample.

    Returns:
        Samples, what was left behind, the run's exit status, and whether Ctrl-C ended it.
    """
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    # Short, since sockets are made below it, and the run's alone, so that what is in it is its own.
    temporary = Path(tempfile.mkdtemp(prefix="soak-"))
    interrupts = Interrupts()
    with (out / "run.log").open("wb") as log:
        process = subprocess.Popen(
            command_of(args),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(temporary)},
            start_new_session=True,  # Ctrl-C comes to us, and is passed on
        )
    try:
        sampler = Sampler(process.pid, out / "run", temporary)
        with interrupts.counted(process), bar(args.steps, quiet=args.quiet) as show:
            samples = watch(process, sampler, Steps(out / "run"), out / "samples.jsonl", show)
            left = left_behind(sampler, temporary)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        shutil.rmtree(temporary, ignore_errors=True)
    return samples, left, process.returncode, interrupts.count > 0


def report(
    samples: Sequence[Sample], left: Sequence[str], args: argparse.Namespace, out: Path
) -> list[Row]:
    """Judge, print and write down.

    Raises:
        ValueError: there are too few steps to judge.
    """
    rows = judge(samples, args.warm_up)
    passed = passing(samples, args.warm_up)
    steps = samples[-1].step
    title = f"{steps} steps of a real run, {args.engine}; judged from step {args.warm_up} on"
    text = f"{title}\n\n{text_of(rows, passed, left)}"
    print(text)
    (out / "soak.txt").write_text(text + "\n", encoding="utf-8")
    facts: dict[str, Any] = {
        "steps": steps,
        "engine": args.engine,
        "warm_up_steps": args.warm_up,
        "samples": len(samples),
        "came_or_went": passed,
        "left_behind": list(left),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    (out / "soak.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    draw(samples, args.warm_up, out / "soak.png", title)
    return rows


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="(default: 200)")
    parser.add_argument(
        "--warm-up",
        type=int,
        default=WARM_UP_STEPS,
        metavar="N",
        help="steps left out at the beginning (default: %(default)s)",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="of the run (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/soak"),
        metavar="DIR",
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the run"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the soak in DIR")
    parser.add_argument("--judge", type=Path, metavar="DIR", help="only judge the samples there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args(arguments)
    least = args.warm_up + LEAST_BLOCKS * BLOCK_STEPS
    if args.warm_up < 0:
        parser.error(f"--warm-up {args.warm_up}: must not be negative")
    if args.judge is None and args.steps < least:
        parser.error(f"--steps {args.steps}: at least {least} are needed for a slope")
    if args.judge is None and args.out.exists() and any(args.out.iterdir()):
        if not (args.overwrite and (args.out / "run.log").exists()):
            parser.error(f"--out {args.out}: is not empty; --overwrite replaces a soak there")
        shutil.rmtree(args.out)
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak and judge.

    Args:
        arguments: command line; the process's own by default.

    Returns:
        0; 1 if a limit is broken or the run failed; 2 for bad input; 130 after Ctrl-C.
    """
    args = _arguments(arguments)
    status, interrupted = 0, False
    try:
        if args.judge is not None:
            samples = read_samples(args.judge / "samples.jsonl")
            facts = json.loads((args.judge / "soak.json").read_text(encoding="utf-8"))
            args.engine, left, out = facts["engine"], facts["left_behind"], args.judge
        else:
            samples, left, status, interrupted = soak(args)
            out = args.out
    except (OSError, ValueError) as error:
        print(f"python -m benchmarks.soak: {error}", file=sys.stderr)
        return 2
    failed = status != 0 and not interrupted
    if failed:
        last = (out / "run.log").read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        print("\n".join([f"the run ended with status {status}:", *last]), file=sys.stderr)
    try:
        rows = report(samples, left, args, out)
    except ValueError as error:
        print(f"python -m benchmarks.soak: not judged: {error}", file=sys.stderr)
        return 130 if interrupted else 1
    if interrupted:
        return 130
    return 1 if failed or left or not all(row.kept for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
