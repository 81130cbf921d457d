"""What lies between a scheduler's command and the engine, from the times of both.

The journal has the commands and events, and the steps of the engines. Which request a step began
with it does not say, but how many: and since requests pass one after the other, the i-th that was
sent since the last update is the i-th that an engine began. What the client holds back until a
server has a place (`areal_real.serving.flow`) is worked out from commands and events.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from areal_sched import commands as c
from areal_sched import events as e
from areal_sched.journal import Entry, Measured
from areal_sched.measurements import EngineSteps, TrainerSpan

NS = 1e-9
_BESIDES = ("idle", "down", "save")
"""What a trainer does that is no part of a training step."""

BURST = 4
"""So many requests sent at once show how they follow each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTimes:
    """Medians, in seconds; None where the run had nothing to take them from.

    Attributes:
        dispatch_s, dispatch_per_rollout_s, report_s, report_per_rollout_s, stop_s: as in
            `areal_sim.costs.protocol.ClientCost`.
        train_s, trained_s: likewise.
        samples: requests, answers, interruptions and training steps they were taken from.
    """

    dispatch_s: float | None
    dispatch_per_rollout_s: float | None
    report_s: float | None
    report_per_rollout_s: float | None
    stop_s: float | None
    train_s: float | None
    trained_s: float | None
    samples: tuple[int, int, int, int]


@dataclass(slots=True)
class _Epoch:
    """From one update of a server to the next."""

    sent: list[tuple[int, int, int]] = field(default_factory=list)  # when, place and size of burst
    answered: list[int] = field(default_factory=list)
    begin_ns: int = 0
    load_ns: int | None = None  # when it was told to load
    stopped: tuple[int, int] | None = None  # when its interruption was reported, of how many
    loaded_ns: int | None = None


@dataclass(slots=True)
class _Training:
    """A training step: told to begin, begun, done, and known to be done."""

    told_ns: int = 0
    begun_ns: int = 0
    done_ns: int = 0
    known_ns: int = 0


@dataclass(slots=True)
class _Server:
    places: int
    held: deque[int] = field(default_factory=deque)
    out: set[int] = field(default_factory=set)
    shut: bool = False
    epochs: list[_Epoch] = field(default_factory=lambda: [_Epoch()])
    steps: list[EngineSteps] = field(default_factory=list)


@dataclass(slots=True)
class Samples:
    """Times of single requests, answers, interruptions and training steps, in seconds, by name."""

    found: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def times(self) -> ClientTimes:
        """Their medians."""

        def median(name: str) -> float | None:
            return float(np.median(self.found[name])) if self.found[name] else None

        counts = [len(self.found[name]) for name in ("dispatch", "report", "stop", "train")]
        return ClientTimes(
            dispatch_s=median("dispatch"),
            dispatch_per_rollout_s=median("dispatch_each"),
            report_s=median("report"),
            report_per_rollout_s=median("report_each"),
            stop_s=median("stop"),
            train_s=median("train"),
            trained_s=median("trained"),
            samples=(counts[0], counts[1], counts[2], counts[3]),
        )


def collect(
    samples: Samples, items: Iterable[Entry | Measured], since_ns: int, until_ns: int
) -> None:
    """Take times from a journal.

    Args:
        samples: they are added here.
        items: all of the journal.
        since_ns: updates before it are passed over.
        until_ns: and those after it.
    """
    servers, trainings = _read(items)
    found = samples.found
    for training in trainings.values():
        if training.told_ns >= since_ns and since_ns < training.known_ns <= until_ns:
            found["train"].append((training.begun_ns - training.told_ns) * NS)
            found["trained"].append((training.known_ns - training.done_ns) * NS)
    for server in servers.values():
        server.steps.sort(key=lambda step: step.start_ns)
        for epoch in server.epochs:
            if epoch.begin_ns >= since_ns and (epoch.loaded_ns or until_ns) <= until_ns:
                _measure(server, epoch, found)


def _read(
    items: Iterable[Entry | Measured],
) -> tuple[dict[int, _Server], dict[int, _Training]]:
    servers: dict[int, _Server] = {}
    trainings: dict[int, _Training] = defaultdict(_Training)
    place: dict[int, int] = {}  # rollout to server
    for item in items:
        if isinstance(item, Measured):
            measured = item.measurement
            if isinstance(measured, EngineSteps):
                servers[measured.server_id].steps.append(measured)
            elif isinstance(measured, TrainerSpan) and measured.activity not in _BESIDES:
                training = trainings[measured.weight_version]
                training.begun_ns = training.begun_ns or measured.start_ns
                training.done_ns = measured.end_ns
            continue
        if isinstance(item.event, e.TrainStepFinished):
            trainings[item.event.weight_version].known_ns = item.now_ns
        _event(servers, place, item.now_ns, item.event)
        for command in item.commands:
            _command(servers, place, item.now_ns, command)
            if isinstance(command, c.StartTrainStep):
                trainings[command.weight_version].told_ns = item.now_ns
        for server in servers.values():
            _send(server, item.now_ns)
    return servers, trainings


def _event(servers: dict[int, _Server], place: dict[int, int], now_ns: int, event: Any) -> None:
    if isinstance(event, e.ServerJoined):
        if event.server_id not in servers:
            servers[event.server_id] = _Server(event.max_running_rollouts)
        servers[event.server_id].epochs.append(_Epoch(begin_ns=now_ns))
    elif isinstance(event, e.ServerLost) and event.server_id in servers:
        server = servers[event.server_id]
        server.out.clear()
        server.held.clear()
        server.shut = False
    elif isinstance(event, e.RolloutFinished | e.RolloutFailed):
        server_id = place.pop(event.rollout_id, None)
        if server_id is not None:
            _gone(servers[server_id], event.rollout_id)
            if isinstance(event, e.RolloutFinished):
                servers[server_id].epochs[-1].answered.append(now_ns)
    elif isinstance(event, e.RolloutsInterrupted):
        server = servers[event.server_id]
        running = len(server.out)
        for rollout_id, _ in event.progress:
            _gone(server, rollout_id)
        if server.shut:
            server.epochs[-1].stopped = now_ns, running
    elif isinstance(event, e.WeightsLoaded):
        server = servers[event.server_id]
        server.epochs[-1].loaded_ns = now_ns
        server.epochs.append(_Epoch(begin_ns=now_ns))
        server.shut = False


def _gone(server: _Server, rollout_id: int) -> None:
    """A rollout has left its server, or the queue before it."""
    if rollout_id in server.out:
        server.out.remove(rollout_id)
    elif rollout_id in server.held:
        server.held.remove(rollout_id)


def _command(servers: dict[int, _Server], place: dict[int, int], now_ns: int, command: Any) -> None:
    if isinstance(command, c.StartRollouts | c.ResumeRollouts):
        servers[command.server_id].held.extend(command.rollout_ids)
        place.update(dict.fromkeys(command.rollout_ids, command.server_id))
    elif isinstance(command, c.LoadWeights):
        server = servers[command.server_id]
        server.epochs[-1].load_ns = now_ns
        server.shut = True


def _send(server: _Server, now_ns: int) -> None:
    if server.shut:
        return
    size = min(len(server.held), server.places - len(server.out))
    if size > 0:
        server.epochs[-1].sent += [(now_ns, place, size) for place in range(size)]
        server.out.update(server.held.popleft() for _ in range(size))


def _measure(server: _Server, epoch: _Epoch, found: dict[str, list[float]]) -> None:
    """Compare what the client did in an epoch with what the engine did."""
    end_ns = epoch.load_ns or max((x[0] for x in epoch.sent), default=0)
    steps = [
        step for step in server.steps if epoch.begin_ns < step.end_ns and step.start_ns < end_ns
    ]
    if not steps:
        return
    step_ns = sum(s.end_ns - s.start_ns for s in steps) / sum(s.steps for s in steps)
    begun, ended = _begun_and_ended(steps)
    bursts: dict[int, list[float]] = defaultdict(list)
    for (sent_ns, place, size), begun_ns in zip(epoch.sent, begun, strict=False):
        if sent_ns > end_ns:
            break
        late_s = (begun_ns - sent_ns) * NS
        if size == 1:
            # It also waited for the end of a step, on average half of one.
            found["dispatch"].append(max(0.0, late_s - step_ns / 2 * NS))
        elif size >= BURST and place:  # the first of many may have found the engine idle
            bursts[sent_ns].append(late_s)
    for late in bursts.values():
        if len(late) >= BURST - 1:
            found["dispatch_each"].append(max(0.0, (late[-1] - late[0]) / (len(late) - 1)))
    report = [
        (answered_ns - ended_ns) * NS
        for answered_ns, ended_ns in zip(epoch.answered, ended, strict=False)
        if answered_ns < end_ns
    ]
    found["report"] += [max(0.0, x) for x in report]
    if epoch.load_ns is not None and epoch.stopped is not None:
        stopped_ns, running = epoch.stopped
        before = [s.end_ns for s in server.steps if s.start_ns < stopped_ns]
        last_ns = min(max(before, default=0), stopped_ns)
        if running and last_ns > epoch.load_ns:
            found["stop"].append(max(0.0, (last_ns - epoch.load_ns - step_ns / 2) * NS))
            usual_s = float(np.median(report)) if report else 0.0
            each_s = ((stopped_ns - last_ns) * NS - usual_s) / running
            found["report_each"].append(max(0.0, each_s))


def _begun_and_ended(steps: list[EngineSteps]) -> tuple[list[int], list[int]]:
    """When an engine began each rollout, and when it was done with each, in order."""
    begun: list[int] = []
    ended: list[int] = []
    running = 0
    decoded_ns = steps[0].start_ns
    for step in steps:
        if step.activity == "prefill":
            begun += [step.start_ns] * (step.rollouts * step.steps)
            running += step.rollouts * step.steps
        else:
            # Who is missing was done when the engine last decoded; prefills may have come between.
            ended += [decoded_ns] * max(0, running - step.rollouts)
            running = step.rollouts
            decoded_ns = step.end_ns
    return begun, ended
