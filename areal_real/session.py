"""From a configuration to a finished run directory: what ``areal-real train`` does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from areal_real.backend import RealBackend, local_placement
from areal_real.checkpoints import Checkpoints
from areal_real.config import RealConfig, config_sha256, load_config, resolved_toml
from areal_real.errors import BackendError
from areal_real.evaluate import evaluate, versions_to_evaluate
from areal_real.folder import RunFolder
from areal_real.learner import NoCheckpoint
from areal_real.live import Setting
from areal_real.parts import Scorer
from areal_real.placement.roles import Placement
from areal_real.roles import RunningServer, Watcher
from areal_real.rows import read_rows
from areal_real.run import Outcome, Run, header_of
from areal_real.tasks.build import make_task
from areal_real.tasks.model import write_model
from areal_real.tasks.problem import Task
from areal_real.tasks.warm_start import Demonstrator, warm_start_parts
from areal_real.training.world import TrainerWorld
from areal_sched.errors import ArealError, ConfigError

MOST_ROLL_BACKS = 3
"""A run that has to go back to a checkpoint so often in one call is given up."""


class Placed(Protocol):
    """Makes the placement of a run's processes, and takes it down when the run is over."""

    def __call__(
        self, config: RealConfig, folder: RunFolder
    ) -> contextlib.AbstractContextManager[Placement]:
        """For this run.

        Raises:
            ConfigError: it cannot be had, or does not fit the configuration.
        """


@dataclass(frozen=True, slots=True)
class Result:
    """A run, as far as it is. ``held_out``: accuracy by step; ``summary``: as written."""

    outcome: Outcome
    held_out: dict[int, float]
    summary: dict[str, Any]


@contextlib.contextmanager
def _here(config: RealConfig, folder: RunFolder) -> Iterator[Placement]:
    yield local_placement(config)


def prepare(config: RealConfig, path: Path, *, resume: bool, overwrite: bool) -> RunFolder:
    """Make a fresh run directory, or find the one to resume in order.

    The configuration is the first file in it, so that a program that ends at any moment leaves
    nothing, or a run that can be resumed.

    Raises:
        ConfigError: there is something else, the run there had another configuration, or another
            program is at work on it.
        BackendError: the disk is full.
    """
    from analysis.rundir import check_out_dir

    folder = RunFolder(path)
    if resume:
        if not folder.config.exists():
            raise ConfigError(f"--out {path}: there is no run to resume")
        folder.check_same(config)
        newest = Checkpoints(folder.checkpoints, keep=1).newest()
        if newest is not None and newest.version > config.workload.steps:
            raise ConfigError(
                f"--out {path}: workload.steps = {config.workload.steps}: the run there has done"
                f" {newest.version}"
            )
        with folder.lock():
            pass  # nothing is written under another program that is at work here
    else:
        if overwrite and folder.is_run:
            with folder.lock():
                folder.clear()
        folder.forget_beginning()
        if folder.is_run:
            raise ConfigError(
                f"--out {path}: a run is there; --resume goes on with it, --overwrite replaces it"
            )
        check_out_dir(path)
        path.mkdir(parents=True, exist_ok=True)
    try:
        folder.config_part.write_text(resolved_toml(config))
        folder.config_part.replace(folder.config)
        folder.make()
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        kind = BackendError if full else ConfigError
        raise kind(f"{exc.filename or folder.config}: {exc.strerror or exc}") from exc
    return folder


def train(
    config: RealConfig,
    path: Path,
    *,
    name: str,
    watcher: Watcher,
    resume: bool = False,
    resume_if_there: bool = False,
    overwrite: bool = False,
    placed: Placed | None = None,
) -> Result:
    """Train, evaluate, and write the results.

    Args:
        config: what to run.
        path: the run directory.
        name: shown in titles.
        watcher: who looks on.
        resume: go on from the newest checkpoint there.
        resume_if_there: the same, and begin the run where there is none.
        overwrite: replace a run that is there.
        placed: where processes start, for as long as the run lasts; by default on this machine.

    Raises:
        ConfigError: bad input; nothing was touched.
        ArealError: the run broke off; it can be resumed.
    """
    for key, missing in config.missing_files():
        raise ConfigError(f"{key} = {missing}: no such file or folder")
    task = make_task(config)
    with (placed or _here)(config, RunFolder(path)) as placement:
        resume = resume or (resume_if_there and RunFolder(path).config.exists())
        folder = prepare(config, path, resume=resume, overwrite=overwrite)
        with folder.lock():
            return _train_in(folder, config, task, placement, name, watcher, resume=resume)


def _train_in(
    folder: RunFolder,
    config: RealConfig,
    task: Task,
    placement: Placement,
    name: str,
    watcher: Watcher,
    *,
    resume: bool,
) -> Result:
    if not folder.model.exists():
        _make_model(config, task, folder)
    checkpoints = Checkpoints(folder.checkpoints, keep=config.real.keep_checkpoints)
    # Sound or not is looked at where it is loaded; here it is whether there is, or was, any.
    if resume and not (checkpoints.newest() or checkpoints.newest_sound(watcher.note)):
        if read_rows(folder.path / "metrics.jsonl"):
            raise ConfigError(
                f"--out {folder.path}: there are steps, and no checkpoint to go on from; to begin"
                " anew, use --overwrite"
            )
        watcher.note("there is no checkpoint yet: beginning anew")
        resume = False
    try:
        outcome = asyncio.run(
            _train(config, folder, task, checkpoints, placement, name, watcher, resume)
        )
    except asyncio.CancelledError:  # a second Ctrl-C
        raise KeyboardInterrupt from None
    except ConfigError:
        raise
    except (ArealError, OSError) as exc:
        if checkpoints.newest() is not None:
            watcher.note("the run broke off; the same command with --resume goes on")
        if isinstance(exc, OSError):  # a full disk, as a rule: no bad input, and no bug
            raise BackendError(f"{exc.filename or folder.path}: {exc.strerror or exc}") from exc
        raise
    if not outcome.interrupted and versions_to_evaluate(config, folder):
        # The run had come to its end before, and its evaluation had not.
        asyncio.run(_evaluate(config, folder, task, placement, watcher))
    return _results(folder, outcome)


async def _train(
    config: RealConfig,
    folder: RunFolder,
    task: Task,
    checkpoints: Checkpoints,
    placement: Placement,
    name: str,
    watcher: Watcher,
    resume: bool,
) -> Outcome:
    async def warm_start(world: TrainerWorld) -> None:
        await _warm_start(config, folder, task, world, watcher)

    setting = Setting(
        config=config,
        header=header_of(config, name, config_sha256(config)),
        folder=folder,
        backend=RealBackend(config, folder, warm_start, placement),
        task=task,
        watcher=watcher,
        checkpoints=checkpoints,
    )

    async def after(servers: Sequence[RunningServer], scorer: Scorer) -> None:
        await evaluate(config, folder, task, servers, scorer, _teller(watcher))

    for roll_backs in range(MOST_ROLL_BACKS + 1):
        try:
            return await Run(setting).go(resume=resume, after=after)
        except NoCheckpoint as exc:
            if roll_backs == MOST_ROLL_BACKS:
                raise
            watcher.note(f"{exc}: going back to the newest checkpoint")
            resume = True
    raise AssertionError  # the loop returns or raises


def evaluate_again(path: Path, watcher: Watcher) -> dict[int, float]:
    """Evaluate what a run published and has not evaluated; returns accuracy by step.

    Raises:
        ConfigError: there is no run.
        BackendError: a server or the reward workers failed.
    """
    folder = RunFolder(path)
    if not folder.config.exists():
        raise ConfigError(f"{path}: no run directory (it has no {folder.config.name})")
    config = load_config(folder.config)
    task = make_task(config)
    with folder.lock():
        if versions_to_evaluate(config, folder):
            with _here(config, folder) as placement:
                asyncio.run(_evaluate(config, folder, task, placement, watcher))
    return {int(x["step"]): float(x["accuracy"]) for x in read_rows(folder.held_out)}


async def _evaluate(
    config: RealConfig, folder: RunFolder, task: Task, placement: Placement, watcher: Watcher
) -> None:
    async def no_warm_start(world: TrainerWorld) -> None:
        """No trainer is started."""

    backend = RealBackend(config, folder, no_warm_start, placement)
    watcher.phase("starting the servers")
    async with contextlib.AsyncExitStack() as stack:
        scorer = await stack.enter_async_context(backend.start_rewards())
        servers = []
        for number in range(config.real.server.count):
            servers.append(await backend.start_server(number))
            stack.push_async_callback(servers[-1].stop)
        await evaluate(config, folder, task, servers, scorer, _teller(watcher))


def _teller(watcher: Watcher) -> Callable[[int, float], None]:
    watcher.phase("evaluating on held-out problems")
    return lambda version, accuracy: watcher.note(
        f"held-out accuracy of step {version}: {accuracy:.1%}"
    )


def _make_model(config: RealConfig, task: Task, folder: RunFolder) -> None:
    if config.real.model.path is not None:
        folder.model.symlink_to(config.real.model.path.resolve(), target_is_directory=True)
        return
    part = folder.model.with_name("model.part")
    shutil.rmtree(part, ignore_errors=True)
    tokenizer = task.tokenizer
    write_model(
        part, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id, seed=config.real.seed
    )
    part.replace(folder.model)


async def _warm_start(
    config: RealConfig, folder: RunFolder, task: Task, world: TrainerWorld, watcher: Watcher
) -> None:
    """Teach the model what answers look like, so that some of them earn a reward."""
    warm = config.real.warm_start
    if not warm.steps:
        return
    if not isinstance(task, Demonstrator):
        raise ConfigError(f"real.warm_start.steps = {warm.steps}: this task shows no examples")
    watcher.phase(f"warm start: {warm.steps} supervised steps")
    path = folder.batches / "warm-start.safetensors"
    for part in warm_start_parts(
        task,
        steps=warm.steps,
        batch_sequences=warm.batch_sequences,
        learning_rate=warm.learning_rate,
    ):
        await asyncio.to_thread(part.batch.save, path)
        await world.supervised(
            path, learning_rate=part.learning_rate, optimizer_steps=part.optimizer_steps
        )
    path.unlink(missing_ok=True)


def _results(folder: RunFolder, outcome: Outcome) -> Result:
    """Tables, pictures and summary, from the journal, the metrics and the evaluations."""
    from analysis.learning import draw_learning
    from analysis.recorder import journal_sha256, read_run
    from analysis.rundir import INTERRUPTED, write_results
    from analysis.summary import summarise

    held_out = read_rows(folder.held_out)
    accuracy = {int(row["step"]): float(row["accuracy"]) for row in held_out}
    summary: dict[str, Any] = {}
    if folder.journal.exists():
        recorder = read_run(folder.journal)
        sha256 = journal_sha256(folder.journal)
        summary = summarise(recorder, recorder.end_ns, recorder.end_ns / 1e9, sha256)
        if outcome.interrupted:
            summary[INTERRUPTED] = True
        summary["held_out_accuracy"] = {str(step): x for step, x in sorted(accuracy.items())}
        rows = read_rows(folder.path / "metrics.jsonl")
        if rows:
            picture = folder.path / "learning.png"
            draw_learning(rows, held_out, picture, title=f"{summary['name']}: learning")
        write_results(recorder, summary, folder.path)
    return Result(outcome, accuracy, summary)
