"""The pool with real workers: answers, hangs, deaths, cancellation, the end."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from areal_real.rewards.errors import RewardFailed
from areal_real.rewards.pool import RewardPool
from areal_real.rewards.worker_process import WorkerProcess, parse_reply
from areal_real.tasks.problem import Problem, RewardKind

LONG_S = 60.0
HANG = Problem(problem_id="hang", prompt="", kind="math", reference="1")
HANGING = r"\boxed{9^{9^{9^{9^9}}}}"
SLOW = r"\boxed{" + "(x+1)" * 2200 + "}"  # several seconds
PATIENCE_S = 120.0


def problem(kind: RewardKind = "exact", reference: str = "1") -> Problem:
    return Problem(problem_id="p", prompt="", kind=kind, reference=reference)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a test; soon afterwards nothing is left of its workers."""
    # Other tests may have left something for good, as Python's resource tracker is.
    before = set(psutil.Process().children(recursive=True))
    asyncio.run(coroutine)
    # What a worker had started is ended by the kernel, a moment after the worker itself.
    give_up_s = time.monotonic() + PATIENCE_S
    while left := set(psutil.Process().children(recursive=True)) - before:
        assert time.monotonic() < give_up_s, left
        time.sleep(0.01)


async def until_busy(pool: RewardPool, *, apart_from: int = 0) -> int:
    """Wait until the pool's worker judges something hard; returns its process id."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < give_up_s, "no worker was ever seen to work hard"
        await asyncio.sleep(0.01)
        for pid in pool.pids:
            # Loading libraries takes well under a second of computing.
            with contextlib.suppress(psutil.Error):
                if pid != apart_from and psutil.Process(pid).cpu_times().user > 1.0:
                    return pid


def test_rights_and_wrongs_of_every_kind(confined: None) -> None:
    tests = json.dumps({"inputs": ["1\n", "5\n"], "outputs": ["2\n", "6\n"]})

    async def body() -> None:
        async with RewardPool(2, LONG_S) as pool:
            cases = [
                (problem("exact", "12"), "12", 1.0),
                (problem("exact", "12"), "13", 0.0),
                (problem("math", r"\frac{1}{2}"), r"\boxed{0.5}", 1.0),
                (problem("math", r"\frac{1}{2}"), r"\boxed{0.6}", 0.0),
                (problem("code", tests), "```python\nprint(int(input()) + 1)\n```", 1.0),
                (problem("code", tests), "```python\nprint(2)\n```", 0.0),
            ]
            rewards = await asyncio.gather(*(pool.score(p, answer) for p, answer, _ in cases))
            assert rewards == [reward for _, _, reward in cases]
            assert len(pool.pids) == 2

    run(body())


def test_many_at_once_are_not_mixed_up() -> None:
    async def body() -> None:
        async with RewardPool(2, LONG_S) as pool:
            numbers = range(500)
            rewards = await asyncio.gather(
                *(pool.score(problem("exact", str(n)), str(n // 3 * 3)) for n in numbers)
            )
            assert rewards == [float(n % 3 == 0) for n in numbers]

    run(body())


def test_a_hanging_worker_is_killed_and_replaced() -> None:
    async def body() -> None:
        async with RewardPool(1, 0.5) as pool:
            assert await pool.score(HANG, "1") == 1.0
            (before,) = pool.pids
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.01)
                    ticks += 1

            ticking = asyncio.create_task(tick())
            with pytest.raises(RewardFailed, match=r"timed out after 0\.5 s") as caught:
                await pool.score(HANG, HANGING)
            ticking.cancel()
            assert caught.value.of_answer
            assert ticks > 5, "the event loop stood still"
            assert not psutil.pid_exists(before)
            assert await pool.score(problem(), "1") == 1.0
            assert pool.pids != (before,)

    run(body())


def test_a_stopped_worker_is_a_hanging_worker() -> None:
    async def body() -> None:
        async with RewardPool(1, LONG_S, start_timeout_s=3.0) as pool:
            await pool.score(problem(), "1")
            (before,) = pool.pids
            os.kill(before, signal.SIGSTOP)
            # It was silent before it began: another worker tries, and succeeds.
            assert await pool.score(problem(), "1") == 1.0
            assert not psutil.pid_exists(before)

    run(body())


def test_an_explosion_in_memory_is_cut() -> None:
    """The number has 2**60 bits. The worker lives on."""

    async def body() -> None:
        async with RewardPool(1, LONG_S, memory_bytes=120 << 20) as pool:
            await pool.score(HANG, "1")
            before = pool.pids
            assert await pool.score(HANG, r"\boxed{2^{2^{60}}}") == 0.0
            assert pool.pids == before
            assert await pool.score(HANG, "1") == 1.0

    run(body())


def test_killed_from_outside_the_answer_gets_a_second_worker() -> None:
    async def body() -> None:
        async with RewardPool(1, LONG_S) as pool:
            scoring = asyncio.create_task(pool.score(HANG, SLOW))
            first = await until_busy(pool)
            os.kill(first, signal.SIGKILL)
            assert await scoring == 0.0
            assert pool.pids not in ((), (first,))

    run(body())


def test_killed_twice_it_fails_and_nobody_is_to_blame() -> None:
    async def body() -> None:
        async with RewardPool(1, LONG_S) as pool:
            scoring = asyncio.create_task(pool.score(HANG, HANGING))
            first = await until_busy(pool)
            os.kill(first, signal.SIGKILL)
            second = await until_busy(pool, apart_from=first)
            os.kill(second, signal.SIGKILL)
            with pytest.raises(RewardFailed, match="killed by signal 9") as caught:
                await scoring
            assert not caught.value.of_answer
            assert await pool.score(problem(), "1") == 1.0

    run(body())


def test_an_answer_that_crashes_its_worker_is_not_tried_again() -> None:
    async def body() -> None:
        async with RewardPool(1, LONG_S) as pool:
            scoring = asyncio.create_task(pool.score(HANG, HANGING))
            os.kill(await until_busy(pool), signal.SIGSEGV)
            with pytest.raises(RewardFailed, match="killed by signal 11") as caught:
                await scoring
            assert caught.value.of_answer
            assert await pool.score(problem(), "1") == 1.0

    run(body())


def test_a_worker_that_died_idle_is_replaced() -> None:
    async def body() -> None:
        async with RewardPool(2, LONG_S) as pool:
            for _ in range(3):
                await asyncio.gather(*(pool.score(problem(), "1") for _ in range(8)))
                for pid in pool.pids:
                    os.kill(pid, signal.SIGKILL)
            assert await pool.score(problem(), "1") == 1.0

    run(body())


def test_workers_do_not_see_ctrl_c() -> None:
    async def body() -> None:
        async with RewardPool(1, LONG_S) as pool:
            await pool.score(problem(), "1")
            (pid,) = pool.pids
            os.kill(pid, signal.SIGINT)
            assert await pool.score(problem(), "1") == 1.0
            assert pool.pids == (pid,)
            assert os.getpgid(pid) != os.getpgid(0)

    run(body())


def test_cancelling_gives_the_worker_back() -> None:
    async def body() -> None:
        async with RewardPool(1, LONG_S) as pool:
            judged = asyncio.create_task(pool.score(HANG, HANGING))
            waiting = asyncio.create_task(pool.score(problem(), "1"))
            await until_busy(pool)
            cancelled = asyncio.create_task(pool.score(problem(), "1"))
            await asyncio.sleep(0)
            for task in (judged, cancelled):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await waiting == 1.0
            assert await pool.score(problem(), "2") == 0.0

    run(body())


def test_closing_fails_what_is_open_and_what_comes() -> None:
    async def body() -> None:
        pool = RewardPool(1, LONG_S)
        tasks = [asyncio.create_task(pool.score(HANG, HANGING)) for _ in range(5)]
        await until_busy(pool)
        await pool.close()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, RewardFailed)
            assert result.reason == "the reward pool was closed"
            assert not result.of_answer
        with pytest.raises(RewardFailed, match="closed"):
            await pool.score(problem(), "1")
        await pool.close()
        assert pool.pids == ()

    run(body())


@pytest.mark.parametrize(
    ("kind", "reference", "message"),
    [
        ("math", "", "no mathematical answer in the reference"),
        ("code", "{}", 'need the lists "inputs" and "outputs"'),
        ("beauty", "1", "no judge for problems of kind 'beauty'"),
    ],
)
def test_a_bad_reference_is_not_the_answers_fault(
    confined: None, kind: Any, reference: str, message: str
) -> None:
    async def body() -> None:
        async with RewardPool(1, LONG_S) as pool:
            with pytest.raises(RewardFailed, match=message) as caught:
                await pool.score(problem(kind, reference), "1")
            assert not caught.value.of_answer

    run(body())


def test_without_bubblewrap_code_has_no_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    async def body() -> None:
        async with RewardPool(1, LONG_S) as pool:
            with pytest.raises(RewardFailed, match="bubblewrap is not installed") as caught:
                await pool.score(problem("code", "{}"), "1")
            assert not caught.value.of_answer
            assert await pool.score(problem(), "1") == 1.0

    run(body())


def test_a_worker_that_cannot_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with RewardPool(1, LONG_S) as pool:
            with monkeypatch.context() as patch:
                patch.setattr(sys, "executable", "/nowhere/python")
                with pytest.raises(RewardFailed, match="no reward worker could be started"):
                    await pool.score(problem(), "1")
                # Starts, and says why it ends.
                patch.setattr(sys, "executable", "/bin/false")
                with pytest.raises(RewardFailed, match=r"died \(exit status 1\)"):
                    await pool.score(problem(), "1")
            assert await pool.score(problem(), "1") == 1.0

    run(body())


def test_workers_are_light() -> None:
    """No worker loads torch, not even one that judges mathematics."""

    async def body() -> None:
        async with RewardPool(1, LONG_S) as pool:
            await pool.score(problem("math", "1"), "1")
            (pid,) = pool.pids
            assert "torch" not in Path(f"/proc/{pid}/maps").read_text()

    run(body())


@pytest.mark.parametrize(
    "reply",
    [{}, [], 1.0, {"reward": 1}, {"reward": "1.0"}, {"reward": float("nan")}, {"begun": True}],
)
def test_what_is_no_reward_is_none(reply: object) -> None:
    with pytest.raises(ValueError, match="not a reply of a reward worker"):
        parse_reply(reply)


@pytest.mark.parametrize(("name", "workers", "timeout_s"), [("workers", 0, 1), ("timeout_s", 1, 0)])
def test_numbers_must_be_positive(name: str, workers: int, timeout_s: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive, not 0"):
        RewardPool(workers, timeout_s)


PARENT = """
import asyncio, sys
from areal_real.rewards.pool import RewardPool
from areal_real.tasks.problem import Problem

async def main():
    tests = '{"inputs": [""], "outputs": [""]}'
    slow = Problem(problem_id="p", prompt="", kind="code", reference=tests)
    async with RewardPool(2, 600.0) as pool:
        scores = [
            asyncio.create_task(pool.score(slow, "import time\\nwhile True: time.sleep(1)"))
            for _ in range(2)
        ]
        await asyncio.gather(*scores)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_and_sandboxes_end_with_their_parent(confined: None, how: signal.Signals) -> None:
    root = Path(__file__).resolve().parents[3]
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.DEVNULL,
    )
    me = psutil.Process(parent.pid)

    def family() -> set[psutil.Process]:
        return set(me.children(recursive=True))

    try:
        # Two workers, and for each a sandbox: bubblewrap twice and Python. Long enough the same for
        # it not to be the sandbox that is made on trial.
        known: set[psutil.Process] = set()
        while len(known) != 2 + 2 * 3 or known != family():
            assert parent.poll() is None, "the parent ended"
            known = family()
            time.sleep(0.4)
        parent.send_signal(how)
        parent.wait()
        _, left = psutil.wait_procs(known, timeout=30)
        assert left == []
    finally:
        parent.kill()
        parent.wait()


def test_a_worker_process_can_be_ended_twice() -> None:
    async def body() -> None:
        worker = await WorkerProcess.spawn(1 << 30)
        statuses = await asyncio.gather(worker.end(), worker.end(), worker.end(grace_s=1.0))
        assert set(statuses) == {-signal.SIGKILL}
        assert not worker.alive

    run(body())
