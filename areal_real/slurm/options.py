"""What is asked of SLURM, held against its forms and against what the run needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from areal_real.config import RealConfig
from areal_real.config.needs import needs_of
from areal_sched.errors import ConfigError

NOTICE_S = 300
"""How long before its time limit a job is told to end, where the user does not say: a training
step, a checkpoint and some room."""

SHORT_JOB_PART = 4
"""Of a short job's time the notice takes at most one part in so many."""

MOST_NOTICE_S = 65_535
"""The longest notice that sbatch takes (man sbatch, --signal)."""

RAY = (2, 52)
"""The first Ray whose clusters ask for a token (RAY_AUTH_MODE)."""

OURS = {
    "account": "--account",
    "array": "--array",
    "chdir": "",
    "cpus-per-task": "--cpus-per-task",
    "error": "",
    "gpus-per-node": "--gpus-per-node",
    "job-name": "--job-name",
    "mem": "--memory",
    "no-requeue": "--no-requeue",
    "nodes": "--nodes",
    "ntasks": "",
    "ntasks-per-node": "",
    "open-mode": "",
    "output": "",
    "parsable": "",
    "partition": "--partition",
    "requeue": "--no-requeue",
    "signal": "--checkpoint-before",
    "time": "--time",
    "wait": "--wait",
    "wrap": "",
}
"""Options of sbatch that the script sets, each with the option of ours that changes it."""

_SEPARATOR = re.compile("hetjob|packjob", re.IGNORECASE)
_KEY = re.compile(r"[a-z][a-z-]*[a-z]")
_SIZE = re.compile(r"\d+[KMGT]?", re.IGNORECASE)
_ITEM = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
_UNLIMITED = {"infinite", "unlimited"}
_TIME = re.compile(
    r"(?:(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?"
    r"|(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+)"
    r"|(?P<alone>\d+))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What is asked for.

    Attributes:
        out: the run directory; with `array` the folder of one per seed.
        nodes: machines.
        gpus_per_node: 0: none is asked for.
        cpus_per_task: CPU cores of a node.
        memory: of a node, in sbatch's form (``64G``); None: as the cluster has it.
        time: the limit, in sbatch's form; None: the partition's.
        partition, account: None: the user's own.
        array: seeds, in the form of sbatch's ``--array``.
        job_name: shown by squeue.
        setup: a shell file that the job reads first.
        modules: that the job loads first.
        more: further options of sbatch; None: one without a value.
        notice_s: the job is told so many seconds before its limit; None: `NOTICE_S`, less for a
            short job.
        requeue: whether the job queues again by itself.
        give_up_after: attempts in a row without a new checkpoint after which it does not.
        run_with: what starts the run's parts.
        python: that runs them.

    Raises:
        ConfigError: a value is none that sbatch would take; the message names option and value.
    """

    out: Path
    nodes: int
    gpus_per_node: int
    cpus_per_task: int
    job_name: str
    python: Path
    run_with: Literal["ray", "local"] = "ray"
    memory: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    array: str | None = None
    setup: Path | None = None
    modules: tuple[str, ...] = ()
    more: tuple[tuple[str, str | None], ...] = ()
    notice_s: int | None = None
    requeue: bool = True
    give_up_after: int = 3

    def __post_init__(self) -> None:
        for option, value in self._texts():
            # A line break would end the directive or the comment that it stands in.
            if not value.isprintable() or not value:
                raise ConfigError(f"{option} {value!r}: has to be printable text in one line")
            if found := _SEPARATOR.search(value):
                raise ConfigError(f"{option} {value}: sbatch reads {found[0]!r} as a separator")
        for option, number, least in (
            ("--nodes", self.nodes, 1),
            ("--gpus-per-node", self.gpus_per_node, 0),
            ("--cpus-per-task", self.cpus_per_task, 1),
            ("--checkpoint-before", self.notice_s, 1),
            ("--give-up-after", self.give_up_after, 1),
        ):
            if number is not None and number < least:
                raise ConfigError(f"{option} {number}: has to be at least {least}")
        if self.memory is not None and not _SIZE.fullmatch(self.memory):
            raise ConfigError(f"--memory {self.memory}: expected a number with K, M, G or T")
        if self.array is not None:
            seeds_of(self.array)
        if self.run_with == "local" and self.nodes > 1:
            raise ConfigError(
                f"--nodes {self.nodes}: --run-with local starts all parts of a run on one node"
            )
        if self.setup is not None and not self.setup.is_file():
            raise ConfigError(f"--setup {self.setup}: no such file")
        for key, text in self.more:
            _check_key(key, text)
        self._check_notice()

    def _texts(self) -> Iterator[tuple[str, str]]:
        texts = {
            "--out": str(self.out),
            "--partition": self.partition,
            "--account": self.account,
            "--time": self.time,
            "--job-name": self.job_name,
        }
        yield from ((option, value) for option, value in texts.items() if value is not None)
        yield from (("--module", value) for value in self.modules)
        yield from (("--sbatch", value) for _, value in self.more if value is not None)

    def _check_notice(self) -> None:
        limit_s = None if self.time is None else seconds_of(self.time)
        if self.notice_s is None:
            return
        if self.notice_s > MOST_NOTICE_S:
            raise ConfigError(
                f"--checkpoint-before {self.notice_s}: sbatch takes at most {MOST_NOTICE_S} seconds"
            )
        if limit_s is not None and self.notice_s >= limit_s:
            raise ConfigError(
                f"--checkpoint-before {self.notice_s}: has to be less than --time {self.time},"
                f" which is {limit_s} seconds"
            )

    @property
    def notice(self) -> int:
        """How long before its limit the job is told, in seconds."""
        if self.notice_s is not None:
            return self.notice_s
        limit_s = None if self.time is None else seconds_of(self.time)
        return NOTICE_S if limit_s is None else min(NOTICE_S, limit_s // SHORT_JOB_PART)

    @property
    def folder(self) -> Path:
        """Beside the run directory: the script and what the jobs print."""
        return self.out.with_name(self.out.name + ".slurm")


def _check_key(key: str, value: str | None) -> None:
    given = key if value is None else f"{key}={value}"
    if not _KEY.fullmatch(key):
        raise ConfigError(f"--sbatch {given}: expected KEY=VALUE, KEY an option of sbatch as --KEY")
    if key in OURS:
        better = f"; use {OURS[key]}" if OURS[key] else ""
        raise ConfigError(f"--sbatch {given}: the script sets --{key} itself{better}")


def seconds_of(time: str) -> int | None:
    """A time limit as sbatch takes it, in seconds; None: unlimited.

    Raises:
        ConfigError: it is none.
    """
    if time.lower() in _UNLIMITED:
        return None
    found = _TIME.fullmatch(time)
    if found is None:
        raise ConfigError(
            f"--time {time}: expected minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS"
        )
    part = {key: int(value or 0) for key, value in found.groupdict().items()}
    hours, minutes = part["hours"] + part["h"], part["minutes"] + part["m"] + part["alone"]
    seconds = part["seconds"] + part["s"]
    total = ((part["days"] * 24 + hours) * 60 + minutes) * 60 + seconds
    if not total:
        raise ConfigError(f"--time {time}: has to be more than nothing")
    return total


def seeds_of(array: str) -> list[int]:
    """The seeds of an array: ``1-3``, ``1,5,7-9``, ``0-8:2``, each also with ``%2`` at the end.

    Raises:
        ConfigError: it is none.
    """
    items, _, most = array.partition("%")
    seeds: list[int] = []
    for item in items.split(","):
        found = _ITEM.fullmatch(item)
        if found is None or ("%" in array and not re.fullmatch("[1-9][0-9]*", most)):
            raise ConfigError(
                f"--array {array}: expected seeds such as 1-3 or 1,5,7; %2 behind them: two at a"
                " time"
            )
        first, last, step = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
        if last < first or step < 1:
            raise ConfigError(f"--array {array}: {item} is no range")
        seeds += range(first, last + 1, step)
    if len(set(seeds)) != len(seeds):
        raise ConfigError(f"--array {array}: a seed is named twice")
    return seeds


def check_nodes(config: RealConfig, options: JobOptions) -> None:
    """Hold what is asked for against what the run needs.

    Raises:
        ConfigError: it is too little, or nodes would be left empty.
    """
    needs = needs_of(config, config.model_shape())
    nodes, per_node = options.nodes, options.gpus_per_node
    if config.real.device == "cpu":
        if per_node:
            raise ConfigError(
                f'--gpus-per-node {per_node}: the run has real.device = "cpu" and uses none'
            )
    elif nodes * per_node < needs.gpus:
        enough = f"--nodes {-(-needs.gpus // per_node)}" if per_node else "--gpus-per-node"
        raise ConfigError(
            f"--nodes {nodes} --gpus-per-node {per_node}: the run needs {needs.gpus} GPUs (servers"
            f" {config.real.server.gpus}, trainer {config.real.trainer.world_size}); {enough} would"
            " do"
        )
    if per_node:
        for key, parallel in (
            ("real.server.tensor_parallel", config.real.server.tensor_parallel),
            ("real.trainer.tensor_parallel", config.real.trainer.tensor_parallel),
        ):
            if per_node % parallel:
                raise ConfigError(
                    f"--gpus-per-node {per_node}: {key} = {parallel} has to divide it"
                )
    server = config.real.server
    processes = server.most * server.tensor_parallel + config.real.trainer.world_size
    if nodes > processes:
        raise ConfigError(
            f"--nodes {nodes}: the run has {processes} processes of servers and trainer, so nodes"
            f" would be left empty; at most {processes}"
        )
    cores = options.cpus_per_task
    if options.run_with == "ray" and nodes * cores < needs.threads:
        raise ConfigError(
            f"--nodes {nodes} --cpus-per-task {cores}: Ray wants a core for each of the"
            f" {needs.threads} threads of servers and trainer; --cpus-per-task"
            f" {cores_per_node(config, nodes)} would do"
        )
    if nodes > 1 and config.real.listen == "loopback":
        raise ConfigError(
            f'--nodes {nodes}: real.listen = "loopback", so that parts on different nodes could not'
            " reach each other; --set real.listen=cluster would do"
        )


def cores_per_node(config: RealConfig, nodes: int) -> int:
    """CPU cores with which every part of a run finds room on some node, whatever the order.

    A server is not divided over nodes. If one found no room, every node would have less than its
    cores free, and all others together had more than there is.
    """
    server, trainer = config.real.server, config.real.trainer
    of_server = server.tensor_parallel * server.threads
    threads = server.most * of_server + trainer.world_size * trainer.threads
    return -(-threads // nodes) + (max(of_server, trainer.threads) - 1 if nodes > 1 else 0)
