"""Makes one run with faults and holds it against the laws; see `benchmarks.fault_schedules`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.accounts import accounts
from analysis.audit import SETTLED, JournalAudit, LawBroken
from analysis.facts import RunFacts
from analysis.recorder import RunRecorder
from analysis.tiling import check_tiling
from areal_sched import (
    AbortRollouts,
    Command,
    Entry,
    Event,
    InterruptRollouts,
    JournalReader,
    JournalWriter,
    LoadWeights,
    RolloutFailed,
    RolloutsInterrupted,
    ServerJoined,
    ServerLost,
    StartTrainStep,
    TrainStepFailed,
    TrainStepFinished,
    WeightsLoaded,
    load,
    replay,
)
from areal_sched.load import built_in
from areal_sched.measurements import Measurement
from areal_sim.config.fault_schedule import joining
from areal_sim.executor import BACKLOG_GROUPS
from areal_sim.simulation import NoServerLeft, Simulation
from benchmarks.fault_cases import Case, Timeline, draw_case, draw_faults
from benchmarks.recount import recount

FAULTS = (ServerLost, ServerJoined, TrainStepFailed, RolloutFailed, RolloutsInterrupted)
"""Events after which all that the state counts is counted again."""

COUNT_EVERY = 16
"""And after every so manieth event."""

STOP_NS = 15_000_000
"""About how long it takes until a step is over, and what is to be stopped has stopped."""

MOST_EVENTS = 200_000
"""Happenings in which a run must come to its end; it takes a few hundred."""


MOST_CPU_S = 30.0
"""Processor time for one case, which takes 0.03 s; see `time_limit`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case.

    Attributes:
        broken: what does not hold; empty if all does.
        happened: faults that did happen, by kind.
        ending: ``steps done``, or why it stopped before.
        counts: rollouts that lost their server, were trained, dropped and failed, and steps that
            failed.
    """

    seed: int
    broken: str = ""
    path: str = ""
    happened: Counter[str] = field(default_factory=Counter)
    ending: str = ""
    counts: Counter[str] = field(default_factory=Counter)


def case_of(seed: int) -> Case:
    """The case of a seed with its faults."""
    bare = draw_case(seed)
    return bare.with_faults(draw_faults(bare, _timeline(bare)))


def outcome_of(seed: int) -> Outcome:
    """Make the run of a seed. Whatever is wrong with it is in the outcome, never raised."""
    case: Case | None = None
    try:
        with time_limit():
            case = case_of(seed)
            return check(case)
    except Exception as error:
        return Outcome(seed, f"{type(error).__name__}: {error}", case.path if case else "")


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """End what goes on and on within one instant, which no count of events would find.

    Raises:
        LawBroken: more than `MOST_CPU_S` have gone.
    """

    def over(*_: object) -> None:
        raise LawBroken(f"no end after {MOST_CPU_S} s of processor time")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def check(case: Case) -> Outcome:
    """Make a run and hold it against the laws, at every event and at its end.

    Raises:
        LawBroken: a law of `analysis.audit` or of this function does not hold.
        ArealError: scheduler, executor, replay or accounts found something wrong.
    """
    run = _Run(case)
    ending = run.go()
    simulation, audit, state = run.simulation, run.audit, run.simulation.state
    _law(sorted(state.rollouts) == audit.live(), "other rollouts are live than the journal says")
    _law(simulation.executor.started == len(audit.rollouts), "others started than were told")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "journal.jsonl.gz"
        file.write_bytes(run.journal)
        reader = JournalReader(file)
        entries = list(reader.entries())
    told = [dataclasses.replace(e, line=r.line) for e, r in zip(run.entries, entries, strict=True)]
    _law(entries == told, "the journal reads as something else")
    limits = case.setup.limits
    replayed = replay(entries, load(case.path, limits, case.options), limits)
    _law(replayed == len(entries), f"only {replayed} of {len(entries)} entries were replayed")
    check_tiling(run.recorder)
    account = accounts(run.recorder)
    total = run.recorder.facts.gpus * simulation.now_ns
    _law(sum(account.gpu_ns.values()) == total, "the accounts do not add up")
    again = _Run(case, checked=False)
    again.go()
    _law(again.journal == run.journal, "the same seed gave another journal")
    return Outcome(
        case.seed,
        path=case.path,
        happened=simulation.faults.happened,
        ending=ending,
        counts=Counter(
            homeless=audit.homeless,
            trained=state.trained,
            dropped=state.dropped,
            failed=state.failed,
            steps_failed=audit.steps_failed,
        ),
    )


def _law(holds: bool, message: str) -> None:
    if not holds:
        raise LawBroken(message)


class _Kept(io.BytesIO):
    """Still readable after `close`."""

    content = b""

    def close(self) -> None:
        if not self.closed:
            self.content = self.getvalue()
        super().close()


class _Run:
    """A run with a journal. Build it, and let it `go`.

    Args:
        case: what to run.
        checked: look at it after every event; otherwise only its journal is made.
    """

    def __init__(self, case: Case, *, checked: bool = True) -> None:
        self._groups_whole = case.groups_whole
        self._stream = _Kept()
        header = _header(case)
        self._writer = JournalWriter(self._stream, header)
        self.entries: list[Entry] = []
        self.audit = JournalAudit(case.setup.limits, self._groups_whole, BACKLOG_GROUPS)
        self.recorder = RunRecorder(RunFacts.from_header(header))
        self._begun: Simulation | None = None
        self._begun = self.simulation = Simulation(
            case.setup,
            load(case.path, case.setup.limits, case.options),
            record=self._record if checked else self._writer.record,
            measure=self._measure if checked else self._writer.measure,
            on_settled=self.recorder.settled if checked else None,
        )

    def go(self) -> str:
        """To the end; returns which it is.

        Raises:
            LawBroken: it comes to none, or a law is broken on the way.
        """
        ending = "steps done"
        simulation = self.simulation
        executor, state = simulation.executor, simulation.state
        try:
            if not simulation.run(MOST_EVENTS):
                raise LawBroken(f"no end in sight: {simulation.whereabouts()}")
        except NoServerLeft:
            up = [server_id for server_id in executor.servers if executor.is_up(server_id)]
            _law(not up, f"servers {up} are up where none is said to be left")
            ending = "no server left"
        simulation.close()
        self._writer.close()
        self.recorder.ended(simulation.now_ns, state.rollouts.values())
        return ending

    @property
    def journal(self) -> bytes:
        """Its bytes, after the end."""
        return self._stream.content

    def _record(
        self, now_ns: int, event: Event, commands: tuple[Command, ...], error: str | None
    ) -> None:
        self._writer.record(now_ns, event, commands, error)
        entry = Entry(len(self.entries) + 2, now_ns, event, commands, error)
        self.entries.append(entry)
        if error is not None:
            return  # it is raised in a moment
        self.recorder.handled(now_ns, event, commands)
        self.audit.take(entry)
        if self._begun is None:
            return
        # The state has its own counts.
        state, places = self._begun.state, self.audit.places
        known = (
            state.running,
            len(state.interrupted),
            state.awaiting_reward,
            len(state.ready),
            len(state.training),
            state.trained,
            state.failed,
            state.dropped,
        )
        told = tuple(places[place] for place in PLACES)
        if known != told:
            raise LawBroken(f"{event}: of {PLACES} the state has {known}, the journal {told}")
        settled = state.trained + state.failed + state.dropped
        if not state.next_rollout_id == len(state.rollouts) + settled == sum(told):
            raise LawBroken(
                f"{event}: {state.next_rollout_id} started are not {len(state.rollouts)} live and"
                f" {settled} settled"
            )
        if isinstance(event, FAULTS) or len(self.entries) % COUNT_EVERY == 0:
            self._count_again(event)

    def _count_again(self, event: Event) -> None:
        """All that the state counts and keeps in order, from its live rollouts alone."""
        assert self._begun is not None
        try:
            recount(self._begun.state, groups_whole=self._groups_whole)
        except AssertionError as error:
            wrong = traceback.extract_tb(error.__traceback__)[-1].line
            raise LawBroken(f"{event}: the state does not keep to: {wrong}") from None

    def _measure(self, now_ns: int, measurement: Measurement) -> None:
        self._writer.measure(now_ns, measurement)
        self.recorder.measured(measurement)


PLACES = ("server", "held", "reward", "ready", "training", *SETTLED)
"""Where rollouts are, in the order of the state's counts."""


def _header(case: Case) -> dict[str, Any]:
    """A journal's header: one GPU a server, one for the trainer, or the same where colocated."""
    setup = case.setup
    servers = setup.servers + joining(setup.faults.schedule)
    return {
        "scheduler": built_in().get(case.path, case.path),
        "options": case.options,
        "limits": dataclasses.asdict(setup.limits),
        "run": {
            "name": f"seed {case.seed}",
            "gpus": servers if setup.colocated else servers + 1,
            "generation_gpus": servers,
            "gpus_per_server": 1,
            "servers": servers,
            "training_gpus": 1,
            "colocated": setup.colocated,
            "unused_gpus": 0,
            "group_size": setup.limits.group_size,
            "train_batch_rollouts": setup.limits.train_batch_rollouts,
            "steps": setup.steps,
            "seed": case.seed,
            "config_sha256": "",
        },
    }


def _timeline(case: Case) -> Timeline:
    """Of the run of a case without faults."""
    instants: list[int] = []
    loads: list[tuple[int, int]] = []
    steps: list[tuple[int, int]] = []
    stops: list[tuple[int, int]] = []
    loading: dict[int, int] = {}
    began_ns = 0

    def note(now_ns: int, event: Event, commands: tuple[Command, ...], error: str | None) -> None:
        nonlocal began_ns
        instants.append(now_ns)
        if isinstance(event, WeightsLoaded):
            loads.append((loading.pop(event.server_id), now_ns))
        elif isinstance(event, TrainStepFinished):
            steps.append((began_ns, now_ns))
        for command in commands:
            if isinstance(command, LoadWeights):
                loading[command.server_id] = now_ns
            elif isinstance(command, StartTrainStep):
                began_ns = now_ns
            elif isinstance(command, AbortRollouts | InterruptRollouts):
                stops.append((now_ns, now_ns + STOP_NS))

    simulation = Simulation(
        case.setup, load(case.path, case.setup.limits, case.options), record=note
    )
    if not simulation.run(MOST_EVENTS):
        raise LawBroken(f"without faults, no end in sight: {simulation.whereabouts()}")
    return Timeline(instants, loads, steps, stops, simulation.now_ns)
