"""Faults of servers, trainer and reward workers: killed, hanging, slow."""

from __future__ import annotations

import time

import psutil

from benchmarks.faults.bench import Act, Bench, Fault, Scenario
from benchmarks.faults.moments import (
    JUDGE,
    SCHEDULER,
    back,
    exporting,
    generating,
    in_step,
    kill,
    limp,
    loading,
    saving,
    servers,
    trainer_ready,
)

LOST = r"server \d was lost: (.*)"
DETOKENIZER = "sglang::detokenizer"


def _kill_server(bench: Bench) -> None:
    kill(servers(bench)[0])


def _kill_group(bench: Bench) -> None:
    for process in bench.run.parts(SCHEDULER, DETOKENIZER, "cpu_launcher"):
        kill(process)


def _kill_part(word: str) -> Act:
    def act(bench: Bench) -> None:
        kill(bench.run.parts(word)[0])

    return act


def _kill_server_and_its_successor(bench: Bench) -> None:
    first = servers(bench)[0]
    kill(first)

    def successor() -> list[psutil.Process]:
        return [process for process in servers(bench) if process.pid != first.pid]

    bench.until(successor, "another server")
    kill(successor()[0])


def _kill_server_and_again_when_back(bench: Bench) -> None:
    first = servers(bench)[0]
    kill(first)
    bench.until(lambda: not bench.journal.state.servers, "the loss")
    bench.until(lambda: back(0)(bench) and generating(bench), "its return")
    kill(servers(bench)[0])
    bench.until(lambda: not bench.journal.state.servers, "the second loss")


def _stop(word: str) -> Act:
    def act(bench: Bench) -> None:
        bench.run.parts(word)[0].suspend()
        bench.until(lambda: not bench.journal.state.servers, "that it is found to hang")

    return act


def _limp(word: str, seconds: float) -> Act:
    def act(bench: Bench) -> None:
        limp(*bench.run.parts(word), seconds=seconds)

    return act


def _server_fault(what: str, act: Act, **more: object) -> Fault:
    return Fault(what=what, act=act, noted=LOST, back=back(0), **more)  # type: ignore[arg-type]


SERVERS = Scenario(
    name="servers",
    steps=110,
    settings={"real.server.request_timeout_s": 60},
    faults=[
        _server_fault("kill -9 of a server while it generates", _kill_server, aim=generating),
        _server_fault("kill -9 of a server while it loads weights", _kill_server, aim=loading),
        _server_fault(
            "kill -9 of a server's scheduler process", _kill_part(SCHEDULER), aim=generating
        ),
        _server_fault(
            "kill -9 of a server's detokenizer process", _kill_part(DETOKENIZER), aim=generating
        ),
        _server_fault("kill -9 of all processes of a server at once", _kill_group, aim=generating),
        _server_fault(
            "kill -9 of a server, and of the next while it starts",
            _kill_server_and_its_successor,
            aim=generating,
            faults=2,
        ),
        _server_fault(
            "kill -9 of a server, and of the next when it is back",
            _kill_server_and_again_when_back,
            aim=generating,
            faults=2,
        ),
        Fault(
            what="slow server: its scheduler stopped nine tenths of 8 s",
            act=_limp(SCHEDULER, 8),
            aim=generating,
            noticed="not at all: it is slow",
        ),
        Fault(
            what="slow server: its HTTP process stopped nine tenths of 8 s",
            act=_limp("cpu_launcher", 8),
            aim=generating,
            noticed="not at all: it is slow",
        ),
        Fault(
            what="slow server: all its processes stopped nine tenths of 8 s, while it loads",
            act=_limp("cpu_launcher", 8),
            aim=loading,
            noticed="not at all: it is slow",
        ),
        _server_fault("a server's scheduler hangs (SIGSTOP)", _stop(SCHEDULER), aim=generating),
        _server_fault("a server's HTTP process hangs", _stop("cpu_launcher"), aim=generating),
    ],
)


def _kill_rank(rank: int) -> Act:
    def act(bench: Bench) -> None:
        kill(bench.run.ranks()[rank])

    return act


def _kill_rank_and_its_successor(bench: Bench) -> None:
    first = bench.run.ranks()[0]
    kill(first)

    def successor() -> psutil.Process | None:
        found = bench.run.ranks().get(0)
        return found if found is not None and found.pid != first.pid else None

    bench.until(successor, "another trainer")
    found = successor()
    assert found is not None
    kill(found)


def _hold_rank(rank: int, seconds: float) -> Act:
    def act(bench: Bench) -> None:
        process = bench.run.ranks()[rank]
        process.suspend()
        time.sleep(seconds)
        process.resume()

    return act


IN_STEP = r"(the trainer was lost in step \d+: .*)"
BACK_TO = r"((?:saving|the trainer was lost in) step \d+: .*)"
"""A checkpoint takes 50 ms: it may be done before the blow lands."""


def _rank_fault(what: str, act: Act, noted: str, **more: object) -> Fault:
    return Fault(what=what, act=act, noted=noted, back=trainer_ready, **more)  # type: ignore[arg-type]


TRAINER = Scenario(
    name="trainer",
    steps=110,
    settings={"real.trainer.data_parallel": 2},
    faults=[
        _rank_fault("kill -9 of trainer rank 0 in a step", _kill_rank(0), IN_STEP, aim=in_step),
        _rank_fault("kill -9 of trainer rank 1 in a step", _kill_rank(1), IN_STEP, aim=in_step),
        _rank_fault(
            "kill -9 of trainer rank 0 while it writes weights",
            _kill_rank(0),
            BACK_TO,
            aim=exporting,
        ),
        _rank_fault(
            "kill -9 of trainer rank 0, and of the next while it starts",
            _kill_rank_and_its_successor,
            IN_STEP,
            aim=in_step,
            faults=2,
        ),
        _rank_fault(
            "kill -9 of trainer rank 0 in a checkpoint", _kill_rank(0), BACK_TO, aim=saving
        ),
        _rank_fault(
            "kill -9 of trainer rank 1 in a checkpoint", _kill_rank(1), BACK_TO, aim=saving
        ),
        Fault(
            what="trainer rank 1 stands still for 5 s in a step",
            act=_hold_rank(1, 5),
            aim=in_step,
            noticed="not at all: rank 0 waits for it",
        ),
    ],
)


def _judges(bench: Bench) -> list[psutil.Process]:
    return bench.run.parts(JUDGE)


def _kill_idle_judge(bench: Bench) -> None:
    first = _judges(bench)[0]
    kill(first)
    _another_judge(bench, first)


def _another_judge(bench: Bench, old: psutil.Process) -> None:
    bench.until(
        lambda: any(process.pid != old.pid for process in _judges(bench)), "another reward worker"
    )


def _kill_busy_judge(bench: Bench) -> None:
    """It is held until it has an answer, and killed with that."""
    first = _judges(bench)[0]
    first.suspend()
    bench.until(lambda: bench.journal.state.awaiting_reward > 0, "an answer to judge")
    time.sleep(0.2)
    kill(first)
    _another_judge(bench, first)


def _kill_judges_until_a_rollout_fails(bench: Bench) -> None:
    before = sum(bench.journal.lost.values())
    seen: set[int] = set()

    def hunt() -> bool:
        for process in _judges(bench):
            if process.pid not in seen:
                seen.add(process.pid)
                kill(process)
        return sum(bench.journal.lost.values()) > before

    bench.until(hunt, "a failed rollout", every_s=0.001)


REWARDS = Scenario(
    name="rewards",
    steps=60,
    faults=[
        Fault(
            what="kill -9 of a reward worker between two answers",
            act=_kill_idle_judge,
            noticed="another worker was started",
        ),
        Fault(
            what="kill -9 of a reward worker while it judges",
            act=_kill_busy_judge,
            noticed="another worker judged the answer",
        ),
        Fault(
            what="kill -9 of reward workers until an answer has lost two",
            act=_kill_judges_until_a_rollout_fails,
            faults=2,
        ),
    ],
)
