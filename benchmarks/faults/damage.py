"""Checkpoints that are damaged on the disk while the program is down."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.bench import Bench, Fault, Scenario
from benchmarks.faults.drive import RunFailed
from benchmarks.faults.moments import generating

SUFFIX = ".damaged"
WEIGHTS = "trainer/weights/model.safetensors"
MOMENTS = "trainer/exp_avg/model.safetensors"
RANDOM = "trainer/rng/rank-00000.safetensors"
FACTS = "run.json"


def checkpoints(bench: Bench) -> list[Path]:
    """Those that can be gone on from, oldest first."""
    found = (bench.folder / "checkpoints").glob("step-*")
    return sorted(path for path in found if path.name.removeprefix("step-").isdigit())


def flip(path: Path, share: float = 0.7) -> None:
    """Turn over one byte."""
    place = int(path.stat().st_size * share)
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0x10]))


def truncate(path: Path) -> None:
    """Cut a file in half."""
    os.truncate(path, path.stat().st_size // 2)


def tell_a_lie(path: Path) -> None:
    """JSON that is none the worse for it, but says something else."""
    facts = json.loads(path.read_text())
    facts["journal_entries"] -= 1
    path.write_text(json.dumps(facts))


def _newest(name: str, harm: Callable[[Path], None]) -> Callable[[Bench], None]:
    def heal(bench: Bench) -> None:
        harm(checkpoints(bench)[-1] / name)

    return heal


def _newest_two(bench: Bench) -> None:
    for path in checkpoints(bench)[-2:]:
        flip(path / WEIGHTS)


def _all_and_mended(bench: Bench) -> None:
    """With all of them damaged it must say so and end; with one of them mended it must go on."""
    paths = checkpoints(bench)
    for path in paths:
        flip(path / WEIGHTS)
    bench.resume()
    status = bench.run.wait()
    if status != 1 or "no checkpoint to go on from is sound" not in bench.run.tail:
        raise RunFailed(f"all checkpoints damaged, and exit status {status}\n{bench.run.tail}")
    mended = paths[-1]
    mended.with_name(mended.name + SUFFIX).replace(mended)
    flip(mended / WEIGHTS)


def _fault(what: str, heal: Callable[[Bench], None], *, faults: int = 2) -> Fault:
    return Fault(
        what=f"kill -9 of the program; {what}; --resume",
        act=lambda bench: bench.run.kill(),
        aim=lambda bench: generating(bench) and len(checkpoints(bench)) >= 3,
        noted=r"(the checkpoint step-.*)",
        ends=-9,
        heal=heal,
        faults=faults,
    )


DAMAGE = Scenario(
    name="damage",
    steps=60,
    settings={"real.keep_checkpoints": 3},
    faults=[
        _fault("a byte of the newest checkpoint's weights turned over", _newest(WEIGHTS, flip)),
        _fault("a byte of its optimizer state turned over", _newest(MOMENTS, flip)),
        _fault("its weights cut in half", _newest(WEIGHTS, truncate)),
        _fault("its random state missing", _newest(RANDOM, Path.unlink)),
        _fault("its run.json missing", _newest(FACTS, Path.unlink)),
        _fault("its run.json altered", _newest(FACTS, tell_a_lie)),
        _fault("the two newest checkpoints damaged", _newest_two, faults=3),
        _fault("all checkpoints damaged, then one mended", _all_and_mended, faults=4),
    ],
)
