"""The job as a shell script: what differs from job to job first, then ``job.sh``."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from areal_real.slurm.options import JobOptions

BODY = Path(__file__).with_name("job.sh")

_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./%^-]+")
_ALIKE = str.maketrans(dict.fromkeys(" /\\%\"'`$#;&|<>(){}[]*?!~", "_"))


def script(
    options: JobOptions, config: Path, train_options: Sequence[str], *, cores: int, cwd: Path
) -> str:
    """The script.

    Args:
        options: what is asked of SLURM.
        config: the run's configuration file.
        train_options: further options of ``areal-real train``.
        cores: that a node of Ray has at least; the run's parts share what there are.
        cwd: where the job works, as the user does who submits it.
    """
    lines = [
        "#!/bin/bash",
        "# Written by areal-real launch. SLURM wants the folder of --output to be there:",
        "#   mkdir -p FOLDER; sbatch THIS_FILE",
        *(f"#SBATCH {line}" for line in _directives(options, cwd)),
        "",
        *_setup(options),
        f"python={shlex.quote(str(options.python))}",
        f"out={shlex.quote(str(options.out))}",
        f"folder={shlex.quote(str(options.folder))}",
        f"run_with={options.run_with}",
        f"gpus_per_node={options.gpus_per_node}",
        f"cpus_per_task={options.cpus_per_task}",
        f"cores={cores}",
        f"notice_s={options.notice}",
        f"requeue={int(options.requeue)}",
        f"give_up_after={options.give_up_after}",
        f"train=({_train(config, train_options)})",
        "",
    ]
    return "\n".join(lines) + "\n" + BODY.read_text(encoding="ascii")


def _train(config: Path, train_options: Sequence[str]) -> str:
    words = ["-m", "areal_real.cli", "train", str(config), "--resume-if-there", *train_options]
    return '"$python" ' + shlex.join(words)


def _setup(options: JobOptions) -> Iterator[str]:
    for name in options.modules:
        yield f"module load {shlex.quote(name)}"
    if options.setup is not None:
        yield f". {shlex.quote(str(options.setup.resolve()))}"


def _directives(options: JobOptions, cwd: Path) -> Iterator[str]:
    log = "%A_%a.out" if options.array else "%j.out"
    folder = str(options.folder).replace("%", "%%")
    values: dict[str, str | None] = {
        "job-name": options.job_name,
        "chdir": str(cwd),
        "output": os.path.join(folder, log),
        "open-mode": "append",
        "nodes": str(options.nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": str(options.cpus_per_task),
    }
    if options.gpus_per_node:
        values["gpus-per-node"] = str(options.gpus_per_node)
    wanted = {
        "mem": options.memory,
        "time": options.time,
        "partition": options.partition,
        "account": options.account,
        "array": options.array,
    }
    values |= {key: str(value) for key, value in wanted.items() if value is not None}
    values["requeue" if options.requeue else "no-requeue"] = None
    values["signal"] = f"B:USR1@{options.notice}"
    for key, value in values.items():
        yield directive(key, value)
    for key, value in options.more:
        yield directive(key, value)


def directive(key: str, value: str | None) -> str:
    """One option as sbatch reads it in a script, where only double quotes and backslashes count."""
    if value is None:
        return f"--{key}"
    if not _PLAIN.fullmatch(value):
        value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"--{key}={value}"


def name_of(config: Path) -> str:
    """A job's name, from the configuration's file name."""
    return config.stem.translate(_ALIKE) or "areal"
