"""``areal-real launch``: a run as a job of a cluster."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from areal_sched.config.overrides import add_overrides
from areal_sched.errors import ConfigError

if TYPE_CHECKING:
    from areal_real.config import RealConfig
    from areal_real.slurm.options import JobOptions


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "launch",
        help="train as a SLURM job that goes on after its time limit",
        description="Write an sbatch script beside DIR and submit it. The job starts a Ray cluster "
        "on its nodes and runs `areal-real train` on it. Before its time limit it ends after the "
        "step in progress with a checkpoint, queues again and goes on, until the run is complete. "
        "The same command goes on with a run whose job was killed. Exit status: 0 if the job is "
        "submitted (with --wait: if the run is complete), 1 if sbatch refuses it (with --wait: if "
        "the job ended otherwise), 2 for bad input; nothing is submitted then.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.toml")
    add_overrides(parser, example="limits.eta=4 or workload.steps=20")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the run directory")
    parser.add_argument("--engine", choices=("slurm",), default="slurm", help="what runs the job")
    parser.add_argument(
        "--run-with",
        choices=("ray", "local"),
        default="ray",
        help="`local`: without Ray, all parts of the run on one node (default: %(default)s)",
    )
    parser.add_argument("--name", help="shown in titles; the configuration's file name otherwise")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, metavar="N", help="the same as --set real.seed=N")
    seeds.add_argument(
        "--array",
        metavar="SEEDS",
        help="a job for each seed, in DIR/seed-N: 1-3, or 1,5,7; 1-9%%2 runs two at a time",
    )
    _add_resources(parser)
    _add_ending(parser)
    after = parser.add_mutually_exclusive_group()
    after.add_argument("--dry-run", action="store_true", help="print the script, submit nothing")
    after.add_argument(
        "--wait", action="store_true", help="show what the job prints until it has ended"
    )
    parser.set_defaults(run=run)


def _add_resources(parser: argparse.ArgumentParser) -> None:
    of_sbatch = parser.add_argument_group("what the job asks for, as sbatch takes it")
    of_sbatch.add_argument(
        "--nodes", type=int, metavar="N", help="as many as the run needs, where it is not given"
    )
    of_sbatch.add_argument(
        "--gpus-per-node", type=int, metavar="N", help="cluster.gpus_per_node; 0 on the CPU"
    )
    of_sbatch.add_argument(
        "--cpus-per-task",
        type=int,
        metavar="N",
        help="CPU cores of a node; as many as the run's processes have threads, where not given",
    )
    of_sbatch.add_argument("--memory", metavar="SIZE", help="memory of a node, such as 64G")
    of_sbatch.add_argument(
        "--time",
        metavar="LIMIT",
        help="such as 90 (minutes) or 1-12:00:00 (default: the partition's)",
    )
    of_sbatch.add_argument("--partition", metavar="NAME", help="(default: the cluster's)")
    of_sbatch.add_argument("--account", metavar="NAME", help="(default: your own)")
    of_sbatch.add_argument("--job-name", metavar="NAME", help="the configuration's file name")
    of_sbatch.add_argument(
        "--sbatch",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="anything else, without dashes, such as qos=high or exclusive; may be repeated",
    )
    of_sbatch.add_argument(
        "--setup", type=Path, metavar="FILE", help="shell commands that the job begins with"
    )
    of_sbatch.add_argument(
        "--module",
        metavar="NAME",
        action="append",
        default=[],
        help="`module load NAME`, before that; may be repeated",
    )
    of_sbatch.add_argument(
        "--python",
        metavar="FILE",
        default=sys.executable,
        help="that runs areal-real on the nodes (default: the one that runs this)",
    )


def _add_ending(parser: argparse.ArgumentParser) -> None:
    from areal_real.slurm.options import NOTICE_S

    ending = parser.add_argument_group("how the job ends")
    ending.add_argument(
        "--checkpoint-before",
        type=int,
        metavar="SECONDS",
        help="before its time limit the job ends its step and makes a checkpoint; has to hold the"
        f" longest step (default: {NOTICE_S}, at most a quarter of --time)",
    )
    ending.add_argument(
        "--no-requeue",
        action="store_true",
        help="do not queue again; the same command goes on with the run",
    )
    ending.add_argument(
        "--give-up-after",
        type=int,
        default=3,
        metavar="N",
        help="do not queue again after so many attempts in a row without a new checkpoint"
        " (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    from areal_real.config import load_config
    from areal_real.slurm.options import check_nodes, cores_per_node
    from areal_real.slurm.script import script
    from areal_real.slurm.submit import follow, submit

    overrides = list(args.overrides)
    if args.seed is not None:
        overrides.append(f"real.seed={args.seed}")
    config = load_config(args.config, overrides)
    options = _options(args, config)
    check_nodes(config, options)
    for key, missing in config.missing_files():
        raise ConfigError(f"{key} = {missing}: no such file or folder")
    if options.run_with == "ray":
        _check_ray(Path(args.python))
    # A list: every directory is looked at before anything is submitted.
    complete = [_is_complete(path, each) for path, each in _runs(args, overrides, options)]
    if all(complete) and not args.dry_run:
        print(f"{args.out}: complete, so nothing is left to submit", file=sys.stderr)
        return 0
    name = args.name or args.config.stem
    more = [x for override in args.overrides for x in ("--set", override)]
    more += ["--name", name, *(["--seed", str(args.seed)] if args.seed is not None else [])]
    cores = cores_per_node(config, options.nodes)
    text = script(options, args.config.absolute(), more, cores=cores, cwd=Path.cwd())
    if args.dry_run:
        print(text, end="")
        return 0
    number = submit(options, text)
    print(f"job {number} is submitted; its output: {options.folder}/{number}*.out", file=sys.stderr)
    if not args.wait:
        return 0
    try:
        done = follow(number, options, lambda line: print(line, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        print(f"job {number} goes on; scancel {number} would end it", file=sys.stderr)
        return 130
    return 0 if done else 1


def _options(args: argparse.Namespace, config: RealConfig) -> JobOptions:
    from areal_real.config.needs import needs_of
    from areal_real.slurm.options import JobOptions, cores_per_node
    from areal_real.slurm.script import name_of

    per_node, nodes = args.gpus_per_node, args.nodes
    gpus = config.real.device == "cuda"
    if per_node is None:
        per_node = config.cluster.gpus_per_node if gpus else 0
    if nodes is None:
        nodes = 1
        if gpus and args.run_with == "ray" and per_node > 0:
            nodes = -(-needs_of(config, config.model_shape()).gpus // per_node)
    cores = args.cpus_per_task
    if cores is None:
        cores = cores_per_node(config, max(1, nodes))
    more = []
    for text in args.sbatch:
        key, given, value = text.partition("=")
        more.append((key.removeprefix("--"), value if given else None))
    return JobOptions(
        # Not resolved: a link may be there so that the folder can move.
        out=Path(os.path.abspath(args.out)),
        nodes=nodes,
        gpus_per_node=per_node,
        cpus_per_task=cores,
        memory=args.memory,
        time=args.time,
        partition=args.partition,
        account=args.account,
        array=args.array,
        job_name=args.job_name or name_of(args.config),
        setup=args.setup,
        modules=tuple(args.module),
        more=tuple(more),
        notice_s=args.checkpoint_before,
        requeue=not args.no_requeue,
        give_up_after=args.give_up_after,
        run_with=args.run_with,
        python=Path(args.python),
    )


def _check_ray(python: Path) -> None:
    """Refuse a Ray whose clusters are open to whoever reaches them.

    Raises:
        ConfigError: Ray is missing here, or too old; with another Python nothing is known.
    """
    from importlib.metadata import PackageNotFoundError, version

    from areal_real.slurm.options import RAY

    if python != Path(sys.executable):
        return
    try:
        found = version("ray")
    except PackageNotFoundError:
        found = ""
    if tuple(int(x) for x in found.split(".")[:2] if x.isdigit()) < RAY:
        wanted = ".".join(map(str, RAY))
        there = f"Ray {found} is installed" if found else "Ray is not installed"
        raise ConfigError(
            f"--run-with ray: {there}, {wanted} or newer is needed (pip install 'areal-lab[ray]');"
            " --run-with local does without it, on one node"
        )


def _runs(
    args: argparse.Namespace, overrides: list[str], options: JobOptions
) -> Iterator[tuple[Path, RealConfig]]:
    """The run directories, and the configuration of each."""
    from areal_real.config import load_config
    from areal_real.slurm.options import seeds_of

    if options.array is None:
        yield options.out, load_config(args.config, overrides)
        return
    for seed in seeds_of(options.array):
        config = load_config(args.config, [*overrides, f"real.seed={seed}"])
        yield options.out / f"seed-{seed}", config


def _is_complete(path: Path, config: RealConfig) -> bool:
    """Whether a run is there and nothing is left to do.

    Raises:
        ConfigError: something else is there, or a run of another configuration.
    """
    from analysis.rundir import SUMMARY, check_out_dir
    from areal_real.checkpoints import Checkpoints
    from areal_real.evaluate import versions_to_evaluate
    from areal_real.folder import RunFolder

    folder = RunFolder(path)
    if not folder.config.exists():
        check_out_dir(path)
        return False
    folder.check_same(config)
    newest = Checkpoints(folder.checkpoints, keep=1).newest()
    if newest is None or newest.version < config.workload.steps:
        return False
    return not versions_to_evaluate(config, folder) and (path / SUMMARY).exists()
