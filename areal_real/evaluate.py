"""Accuracy on held-out problems: after a run, from the weights it published on its way.

Evaluating afterwards leaves the run's timing alone: no server generates for anything but training
while it lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from areal_real.config import RealConfig
from areal_real.errors import BackendError
from areal_real.folder import RunFolder
from areal_real.parts import Scorer
from areal_real.roles import RunningServer
from areal_real.rows import read_rows, write_rows
from areal_real.tasks.problem import Problem, Task

RIGHT = 0.5
"""A reward above it is a right answer."""


def versions_to_evaluate(config: RealConfig, folder: RunFolder) -> list[int]:
    """Versions that are there, are to be evaluated, and are not yet."""
    there = folder.versions()
    every = config.real.evaluation.every_steps
    wanted = {0, *there[-1:], *(x for x in there if every is not None and x % every == 0)}
    done = {row["step"] for row in read_rows(folder.held_out)}
    return sorted(wanted & set(there) - done)


async def evaluate(
    config: RealConfig,
    folder: RunFolder,
    task: Task,
    servers: Sequence[RunningServer],
    scorer: Scorer,
    tell: Callable[[int, float], None],
) -> None:
    """Evaluate what is missing, version by version; each is on disk once it is known.

    Args:
        config: the run's.
        folder: its directory.
        task: knows the held-out problems.
        servers: idle ones.
        scorer: reward workers.
        tell: called with version and accuracy.

    Raises:
        BackendError: a server or the reward workers failed.
    """
    problems = list(task.held_out())[: config.real.evaluation.problems]
    for version in versions_to_evaluate(config, folder):
        try:
            right = await _right(config, task, version, servers, scorer, problems)
        except BackendError:  # once more, on servers that are started again where they were lost
            right = await _right(config, task, version, servers, scorer, problems)
        accuracy = sum(right) / len(right)
        row = {"step": version, "accuracy": accuracy, "problems": len(problems)}
        rows = [*read_rows(folder.held_out), row]
        write_rows(folder.held_out, sorted(rows, key=lambda row: int(row["step"])))
        tell(version, accuracy)


async def _right(
    config: RealConfig,
    task: Task,
    version: int,
    servers: Sequence[RunningServer],
    scorer: Scorer,
    problems: Sequence[Problem],
) -> list[bool]:
    """Of each problem, whether it is answered right with these weights."""
    # Wait for all, here and below: what is tried again must not meet the first try.
    used = await asyncio.gather(
        *(server.use(version) for server in servers), return_exceptions=True
    )
    for error in used:
        if error is not None:
            raise error
    judged = await asyncio.gather(
        *(
            _judge(config, task, servers[number % len(servers)], scorer, problem)
            for number, problem in enumerate(problems)
        ),
        return_exceptions=True,
    )
    right: list[bool] = []
    for outcome in judged:
        if isinstance(outcome, BaseException):
            raise outcome
        right.append(outcome)
    return right


async def _judge(
    config: RealConfig, task: Task, server: RunningServer, scorer: Scorer, problem: Problem
) -> bool:
    """Whether the likeliest answer is right; one that cannot be judged is not."""
    prompt = task.tokenizer.encode(problem.prompt)
    ids = await server.answer(prompt, config.workload.max_response_tokens)
    try:
        return await scorer.score(problem, task.tokenizer.decode(ids)) > RIGHT
    except BackendError:
        return False
