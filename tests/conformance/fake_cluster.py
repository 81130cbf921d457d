"""An executor that keeps the contract and owes nothing beyond it.

What an executor, simulated or real, promises a scheduler. The fake does all that these sentences
allow, in an order chosen by an adversary:

1. The trainer says `TrainerReady` when it joins and again some time after every step, finished or
   failed: it saves and evaluates in between. Servers join when they like.
2. One `PromptArrived` per group, ``group_size`` as in the limits; there is soon a backlog again
   whenever fewer than `BACKLOG` groups are pending.
3. A rollout on a server ends with `RolloutFinished` or `RolloutFailed`, unless it is interrupted
   or its server is lost. Its reward comes without being asked for, as `RewardComputed` or
   `RolloutFailed`, also after the rollout was dropped.
4. Outcomes are late: between a command and its effect a rollout may finish or fail and a server
   may be lost. A rollout that finished first is left out of `RolloutsInterrupted`.
5. An aborted rollout is settled once: by an event of its own, by being among the interrupted, or
   by the loss of its server; or it finished first.
6. ``LoadWeights(interrupt)`` reports what was running with `RolloutsInterrupted` (nothing need
   be said of nothing), then `WeightsLoaded`. ``drain``: what was running ends, then
   `WeightsLoaded`. ``in_place``: `WeightsLoaded` alone. Rollouts sent to a loading server wait and
   begin on the new weights. Loading may take longer than training steps do.
7. A lost server says nothing more; reported tokens of its rollouts are kept, the rest is gone. It
   may join again under its id, with any published weights, as a restarted process does.
8. Timers fire at their time or later.
"""

from __future__ import annotations

from collections.abc import Callable

from areal_sched import (
    AbortRollouts,
    ClusterView,
    Command,
    DropRollouts,
    Event,
    InterruptRollouts,
    LoadWeights,
    PromptArrived,
    ResumeRollouts,
    RewardComputed,
    RolloutFailed,
    RolloutFinished,
    RolloutsInterrupted,
    ServerJoined,
    ServerLost,
    SetTimer,
    StartRollouts,
    StartTrainStep,
    TimerFired,
    TrainerReady,
    TrainStepFailed,
    TrainStepFinished,
    WeightsLoaded,
)
from areal_sched.ids import GroupId, PromptId, RolloutId, ServerId, TimerId, WeightVersion
from tests.conformance.choices import Choices, Temper
from tests.conformance.fake_records import FakeRollout, FakeServer

BACKLOG = 3
"""Fewer pending groups than this, and prompts arrive."""

Key = tuple[str, int]
"""Something that can happen: its kind, and the id of what it happens to."""


class FakeCluster:
    """See the module's text.

    Args:
        view: to see whether prompts run short, and for nothing else.
        temper: how it misbehaves.
        choices: the adversary; when they are used up, everything that can happen happens in the
            order in which it became possible, and nothing fails any more.
    """

    def __init__(self, view: ClusterView, temper: Temper, choices: Choices) -> None:
        self._view = view
        self._temper = temper
        self._choices = choices
        self.now_ns = 0
        self.published = WeightVersion(0)
        self.steps_failed = 0
        self.late_facts = 0
        self.batch: tuple[RolloutId, ...] = ()
        self.rollouts: dict[RolloutId, FakeRollout] = {}
        self.live: dict[RolloutId, FakeRollout] = {}
        self.servers = [FakeServer(ServerId(i), WeightVersion(0)) for i in range(temper.servers)]
        self._groups = 0
        self._timers: dict[int, int] = {}
        # Everything that is going to happen, oldest first.
        self._todo: dict[Key, None] = {("ready", 0): None, ("prompt", 0): None}
        self._todo |= {("join", server.server_id): None for server in self.servers}

    # ---- what happens next ---------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """Let the next thing happen; None if nothing can, ever."""
        while True:
            fault = self._fault() if self._choices.happens(self._temper.fault_rate) else None
            if fault is not None:
                event: Event | None = fault
            else:
                possible = [key for key in self._todo if self._possible(key)]
                if not possible:
                    return None
                kind, item = self._pick(possible)
                happen: Callable[[int], Event | None] = getattr(self, f"_{kind}")
                event = happen(item)
            self.now_ns += self._choices.below(256)
            if isinstance(event, TimerFired):
                self.now_ns = max(self.now_ns, self._timers.pop(event.timer_id))
            if event is not None:
                return event

    def _pick(self, possible: list[Key]) -> Key:
        if self._choices.calm:
            prompts = [key for key in possible if key[0] == "prompt"]
            return (prompts or possible)[0]
        quick = [key for key in possible if key[0] not in self._temper.slow]
        if quick and len(quick) < len(possible) and self._choices.below(16) < 15:
            possible = quick
        if self._temper.kinds_first:
            kinds = list(dict.fromkeys(kind for kind, _ in possible))
            kind = kinds[self._choices.below(len(kinds))]
            possible = [key for key in possible if key[0] == kind]
        return possible[self._choices.below(min(len(possible), 256))]

    def _possible(self, key: Key) -> bool:
        kind, item = key
        if kind == "prompt":
            return len(self._view.pending) < BACKLOG
        if kind == "finish":
            rollout = self.live[RolloutId(item)]
            return rollout.stint_version is not None
        if kind == "load":
            server = self.servers[item]
            assert server.load is not None
            if server.load.mode == "interrupt":
                return server.reported
            return server.load.mode == "in_place" or not server.before
        return True

    def _fault(self) -> Event | None:
        candidates: list[Key] = [
            key
            for key in self._todo
            if (key[0] == "finish" and "rollout" in self._temper.faults)
            or (key[0] in ("reward", "step") and key[0] in self._temper.faults)
        ]
        if "server" in self._temper.faults:
            candidates += [("lose", server.server_id) for server in self.servers if server.up]
        if not candidates:
            return None
        kinds = list(dict.fromkeys(kind for kind, _ in candidates))
        wanted = kinds[self._choices.below(len(kinds))]
        items = [item for kind, item in candidates if kind == wanted]
        item = items[self._choices.below(min(len(items), 256))]
        if wanted == "lose":
            return self._lose(self.servers[item])
        del self._todo[wanted, item]
        if wanted == "step":
            return self._step_fails()
        rollout_id = RolloutId(item)
        if rollout_id in self.live:
            self._settle(self.live[rollout_id], "failed")
        else:
            self.late_facts += 1
        return RolloutFailed(rollout_id=rollout_id, reason=f"{wanted} fault")

    # ---- servers, prompts, timers --------------------------------------------------------------

    def _join(self, item: int) -> Event:
        del self._todo["join", item]
        old = WeightVersion(self._choices.below(min(self.published + 1, 256)))
        self.servers[item] = FakeServer(ServerId(item), old, up=True)
        return ServerJoined(
            server_id=ServerId(item),
            max_running_rollouts=4,
            kv_cache_tokens=1000,
            weight_version=old,
        )

    def _lose(self, server: FakeServer) -> Event:
        server.up = False
        for kind in ("interrupt", "load"):
            self._todo.pop((kind, server.server_id), None)
        self._todo["join", server.server_id] = None
        for rollout in self._on(server):
            if rollout.aborted:
                self._settle(rollout, "failed")
            else:
                self._leave(rollout, "held")
        return ServerLost(server_id=server.server_id)

    def _load(self, item: int) -> Event:
        del self._todo["load", item]
        server = self.servers[item]
        assert server.load is not None
        version = server.load.weight_version
        server.weight_version, server.load = version, None
        server.before.clear()
        for rollout in self._on(server):
            if rollout.stint_version is None:
                rollout.stint_version = version
        return WeightsLoaded(server_id=server.server_id, weight_version=version)

    def _interrupt(self, item: int) -> Event | None:
        del self._todo["interrupt", item]
        server = self.servers[item]
        stopped = set(server.asked)
        if server.load is not None and server.load.mode == "interrupt" and not server.reported:
            stopped |= server.before
            server.reported = True
        server.asked.clear()
        progress = []
        for rollout_id in sorted(stopped):
            rollout = self.live[rollout_id]
            if rollout.aborted and self._choices.below(2):
                continue  # its own event will settle it
            self._generate(rollout, self._choices.below(4))
            progress.append((rollout_id, rollout.tokens))
            if rollout.aborted:
                self._settle(rollout, "failed")
            else:
                self._leave(rollout, "held")
        if not progress and self._choices.below(2):
            return None
        return RolloutsInterrupted(
            server_id=server.server_id,
            weight_version=server.weight_version,
            progress=tuple(progress),
        )

    def _prompt(self, item: int) -> Event:
        group = self._groups
        self._groups += 1
        return PromptArrived(
            prompt_id=PromptId(group % 5),
            group_id=GroupId(group),
            group_size=self._view.limits.group_size,
            prompt_tokens=1 + self._choices.below(16),
        )

    def _timer(self, item: int) -> Event:
        del self._todo["timer", item]
        return TimerFired(timer_id=TimerId(item))

    # ---- rollouts ------------------------------------------------------------------------------

    def _finish(self, item: int) -> Event:
        rollout = self.live[RolloutId(item)]
        version = self.servers[rollout.server_id].weight_version
        self._generate(rollout, 1 + self._choices.below(8))
        self._leave(rollout, "reward")
        self._todo["reward", item] = None
        return RolloutFinished(
            rollout_id=rollout.rollout_id,
            weight_version=version,
            generated_tokens=rollout.tokens,
            finish_reason=("stop", "length")[self._choices.below(2)],
        )

    def _abort(self, item: int) -> Event:
        self._settle(self.live[RolloutId(item)], "failed")
        return RolloutFailed(rollout_id=RolloutId(item), reason="aborted")

    def _reward(self, item: int) -> Event:
        del self._todo["reward", item]
        rollout = self.live.get(RolloutId(item))
        if rollout is None:
            self.late_facts += 1
        else:
            rollout.place = "ready"
        return RewardComputed(rollout_id=RolloutId(item), reward=self._choices.below(8) / 4 - 1)

    def _generate(self, rollout: FakeRollout, tokens: int) -> None:
        if tokens and rollout.stint_version is not None:
            rollout.tokens += tokens
            if rollout.first_version is None:
                rollout.first_version = rollout.stint_version

    def _on(self, server: FakeServer) -> list[FakeRollout]:
        here = server.server_id
        return [r for r in self.live.values() if r.place == "server" and r.server_id == here]

    def _leave(self, rollout: FakeRollout, place: str) -> None:
        """Take a rollout off its server."""
        if rollout.place == "server":
            server = self.servers[rollout.server_id]
            server.before.discard(rollout.rollout_id)
            server.asked.discard(rollout.rollout_id)
            for kind in ("finish", "abort"):
                self._todo.pop((kind, rollout.rollout_id), None)
        rollout.place = place
        rollout.aborted = False
        rollout.stint_version = None

    def _settle(self, rollout: FakeRollout, place: str) -> None:
        self._leave(rollout, place)
        del self.live[rollout.rollout_id]

    # ---- the trainer ---------------------------------------------------------------------------

    def _ready(self, item: int) -> Event:
        del self._todo["ready", 0]
        return TrainerReady(weight_version=self.published)

    def _step(self, item: int) -> Event:
        del self._todo["step", 0]
        self._todo["ready", 0] = None
        for rollout_id in self.batch:
            self._settle(self.live[rollout_id], "trained")
        self.batch = ()
        self.published = WeightVersion(self.published + 1)
        return TrainStepFinished(weight_version=self.published)

    def _step_fails(self) -> Event:
        self._todo["ready", 0] = None
        for rollout_id in self.batch:
            self.live[rollout_id].place = "ready"
        self.batch = ()
        self.steps_failed += 1
        return TrainStepFailed(
            weight_version=WeightVersion(self.published + 1), reason="out of memory"
        )

    # ---- commands ------------------------------------------------------------------------------

    def execute(self, command: Command) -> None:
        """Begin to carry out a command."""
        match command:
            case StartRollouts():
                for rollout_id in command.rollout_ids:
                    rollout = FakeRollout(rollout_id, command.group_id, command.server_id)
                    self.rollouts[rollout_id] = self.live[rollout_id] = rollout
                    self._send(rollout, command.server_id)
            case ResumeRollouts():
                for rollout_id in command.rollout_ids:
                    self._send(self.live[rollout_id], command.server_id)
            case InterruptRollouts():
                self.servers[command.server_id].asked |= set(command.rollout_ids)
                self._todo.setdefault(("interrupt", command.server_id))
            case AbortRollouts():
                for rollout_id in command.rollout_ids:
                    self.live[rollout_id].aborted = True
                    self._todo["abort", rollout_id] = None
            case DropRollouts():
                for rollout_id in command.rollout_ids:
                    self._settle(self.live[rollout_id], "dropped")
            case LoadWeights():
                server = self.servers[command.server_id]
                server.load, server.reported = command, False
                server.before = {r.rollout_id for r in self._on(server)}
                self._todo["load", command.server_id] = None
                if command.mode == "interrupt":
                    self._todo.setdefault(("interrupt", command.server_id))
            case StartTrainStep():
                self.batch = command.rollout_ids
                for rollout_id in self.batch:
                    self.live[rollout_id].place = "training"
                self._todo["step", 0] = None
            case SetTimer():
                self._timers[command.timer_id] = command.fire_at_ns
                self._todo["timer", command.timer_id] = None

    def _send(self, rollout: FakeRollout, server_id: ServerId) -> None:
        server = self.servers[server_id]
        rollout.place, rollout.server_id = "server", server_id
        rollout.stint_version = server.weight_version if server.load is None else None
        self._todo["finish", rollout.rollout_id] = None
