"""The simulated trainer: one step at a time, phase by phase, as a SimPy process.

A step is: proximal log-probabilities of the whole batch (paper section 5.2), then for each
minibatch forward and backward and an optimizer step, then publishing the weights, then saving and
evaluating. Data-parallel ranks wait for the slowest at the end of each of the first two.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from simpy.events import Event as SimpyEvent
from simpy.events import Process
from simpy.exceptions import Interrupt

from areal_sched.commands import StartTrainStep
from areal_sched.events import Event, TrainerReady, TrainStepFailed, TrainStepFinished
from areal_sched.ids import WeightVersion
from areal_sched.measurements import TrainerActivity, TrainerSpan
from areal_sched.packing import PackedStep
from areal_sim.clock import Clock
from areal_sim.costs.pipeline import train_ranks_s
from areal_sim.costs.protocol import CostProvider, TrainerCost

NS_PER_S = 1_000_000_000


class Host(Protocol):
    """What the trainer needs of its surroundings."""

    def emit(self, event: Event) -> None:
        """Report an event."""

    def end_instant(self) -> None:
        """Handle what was emitted; ends every SimPy callback."""

    def measure(self, span: TrainerSpan) -> None:
        """Take down what the trainer did."""

    def lend_servers(self, lent: Callable[[], None]) -> None:
        """Colocated: call `lent` when every server has given its GPUs."""

    def give_back_servers(self) -> None:
        """Colocated: the servers have their GPUs again."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of a training step. ``waiting_s``: what an average GPU waits within it."""

    activity: TrainerActivity
    seconds: float
    waiting_s: float
    micro_batches: int


def phases(cost: TrainerCost, packed: PackedStep, sizes: Sequence[int]) -> list[Phase]:
    """Phases of one step up to its last optimizer step.

    Args:
        cost: the trainer's coefficients.
        packed: positions in `sizes`, as ``packed[minibatch][rank][micro_batch]``.
        sizes: tokens of each sequence, prompt and response.
    """
    pairs = [size * size for size in sizes]
    size_of, pairs_of = sizes.__getitem__, pairs.__getitem__
    forward: list[Phase] = []
    update: list[Phase] = []
    optimizer = Phase("optimizer", cost.optimizer_s, 0.0, 0)
    for ranks in packed:
        tokens = [[sum(map(size_of, micro)) for micro in rank] for rank in ranks]
        squares = [[sum(map(pairs_of, micro)) for micro in rank] for rank in ranks]
        count = sum(len(rank) for rank in ranks)
        for forward_only, out in ((True, forward), (False, update)):
            times, busy = train_ranks_s(cost, tokens, squares, forward_only)
            slowest = max(times)
            waiting = slowest - sum(busy) / len(busy)
            activity: TrainerActivity = "proximal" if forward_only else "minibatch"
            out.append(Phase(activity, slowest, waiting, count))
        update.append(optimizer)
    # The proximal pass runs over the whole batch before the first update.
    proximal = Phase(
        "proximal",
        sum(p.seconds for p in forward),
        sum(p.waiting_s for p in forward),
        sum(p.micro_batches for p in forward),
    )
    overhead = Phase("overhead", cost.step_overhead_s, 0.0, 0)
    return [overhead, proximal, *update]


LOST = "the trainer was lost"
"""Reason of steps that failed."""


def _ring(event: SimpyEvent) -> None:
    event.succeed()


class Trainer:
    """Carries out `StartTrainStep`.

    Args:
        env: the simulation.
        host: see `Host`.
        costs: provider of the times.
        layout: packs one step's sequence lengths for the ranks.
        save_s: takes the version made and the nanoseconds since the last pause for it, or the
            start; gives the seconds of saving and evaluating after it.
        colocated: whether the GPUs are the servers' too.
        recompute_proximal: False leaves the proximal pass out (naive PPO).
    """

    def __init__(
        self,
        env: Clock,
        host: Host,
        costs: CostProvider,
        layout: Callable[[Sequence[int]], PackedStep],
        save_s: Callable[[int, int], float],
        *,
        colocated: bool,
        recompute_proximal: bool = True,
    ) -> None:
        self._env = env
        self._host = host
        self._costs = costs
        self._cost = costs.trainer()
        client = costs.client()
        self._train_s, self._trained_s = client.train_s, client.trained_s
        self._layout = layout
        self._save_s = save_s
        self._saved_ns = env.now
        self._colocated = colocated
        self._recompute_proximal = recompute_proximal
        self._activity: TrainerActivity = "idle"
        self._since_ns = env.now
        self._version = WeightVersion(0)
        self._process: Process | None = None  # of the step in progress, saving included
        self._published = False  # whether that step has come to its weights
        self._down = False
        self._lost_for_ns: int | None = None  # lost while there was nothing to do

    def start(self, command: StartTrainStep, sizes: Sequence[int]) -> None:
        """Begin a step.

        Args:
            command: names the version to be made.
            sizes: tokens of each trajectory of the batch, prompt and response, in its order.
        """
        self._process = self._env.process(self._work(command.weight_version, sizes))

    def lose(self, for_ns: int) -> bool:
        """The trainer dies, and needs so long to be as it was before the step in progress.

        One that has nothing to do is missed when the next step begins, and is started again then.
        One that is being started again already is not lost a second time: False is returned.
        """
        if self._process is None:
            self._lost_for_ns = max(for_ns, self._lost_for_ns or 0)
        elif not self._down:
            self._down = True
            self._process.interrupt(for_ns)
        else:
            return False
        return True

    def close(self) -> None:
        """The run ends: report the span in progress."""
        self._be("idle")

    def _work(self, version: WeightVersion, sizes: Sequence[int]) -> Generator[Any, Any, None]:
        """A step, or what becomes of it where the trainer is lost."""
        host = self._host
        self._published = False
        lost_for_ns, self._lost_for_ns = self._lost_for_ns, None
        held = version
        if lost_for_ns is None:
            try:
                yield from self._step(version, sizes)
            except Interrupt as interrupt:
                lost_for_ns = interrupt.cause
        if lost_for_ns is not None:
            self._down = True
            self._be("idle")  # ends what was in progress
            if not self._published:
                held = WeightVersion(version - 1)
                if self._colocated:
                    host.give_back_servers()
                host.emit(TrainStepFailed(weight_version=version, reason=LOST))
                host.end_instant()
            self._version = held
            self._be("down")
            yield self._env.timeout(max(1, lost_for_ns))
            self._be("idle")
            self._down = False
        self._process = None
        host.emit(TrainerReady(weight_version=held))
        host.end_instant()

    def _step(self, version: WeightVersion, sizes: Sequence[int]) -> Generator[Any, Any, None]:
        env, host = self._env, self._host
        if self._colocated:
            lent = env.event()
            host.lend_servers(lambda: _ring(lent))
            host.end_instant()
            yield lent
            yield from self._spend("switch", self._costs.switch_s("train"), version)
        yield from self._spend("idle", self._train_s, version)
        for phase in phases(self._cost, self._layout(sizes), sizes):
            if phase.activity == "proximal" and not self._recompute_proximal:
                continue
            yield from self._spend(
                phase.activity, phase.seconds, version, phase.waiting_s, phase.micro_batches
            )
        yield from self._spend("publish", self._costs.weight_publish_s(), version)
        if self._colocated:
            # The servers get their GPUs when all is done, or saving would have to share them.
            yield from self._save(version)
            yield from self._spend("switch", self._costs.switch_s("generate"), version)
            self._be("idle")
            yield from self._spend("idle", self._trained_s, version)
            host.give_back_servers()
            self._published = True
            host.emit(TrainStepFinished(weight_version=version))
        else:
            self._be("idle")
            yield from self._spend("idle", self._trained_s, version)
            self._published = True
            host.emit(TrainStepFinished(weight_version=version))
            host.end_instant()
            yield from self._save(version)
            self._be("idle")

    def _save(self, version: WeightVersion) -> Generator[Any, Any, None]:
        """Save and evaluate, where that is due."""
        seconds = self._save_s(version, self._env.now - self._saved_ns)
        yield from self._spend("save", seconds, version)
        if seconds:
            self._saved_ns = self._env.now

    def _spend(
        self,
        activity: TrainerActivity,
        seconds: float,
        version: WeightVersion,
        waiting_s: float = 0.0,
        micro_batches: int = 0,
    ) -> Generator[Any, Any, None]:
        duration_ns = round(seconds * NS_PER_S)
        if not duration_ns:
            return
        self._version = version
        self._be(activity)
        waiting_ns = min(round(waiting_s * NS_PER_S), duration_ns)
        yield self._env.timeout(duration_ns)
        self._be("idle", waiting_ns, micro_batches)

    def _be(self, activity: TrainerActivity, waiting_ns: int = 0, micro_batches: int = 0) -> None:
        """End the span in progress, and begin another."""
        now_ns = self._env.now
        if now_ns > self._since_ns:
            self._host.measure(
                TrainerSpan(
                    activity=self._activity,
                    weight_version=self._version,
                    start_ns=self._since_ns,
                    end_ns=now_ns,
                    waiting_ns=waiting_ns,
                    micro_batches=micro_batches,
                )
            )
            self._since_ns = now_ns
        self._activity = activity
