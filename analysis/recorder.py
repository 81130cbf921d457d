"""The recorder: all of a run that analysis needs, in compact columns.

The executor hands it what happens, live, simulated or real; `read_run` hands it the same from a
journal. 58 bytes a trajectory are kept and 53 a server's span.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import get_args

import numpy as np

from analysis.columns import Columns, Ints
from analysis.errors import AnalysisError
from analysis.facts import RunFacts
from areal_sched.commands import Command, LoadWeights
from areal_sched.errors import ConfigError, JournalError, ProtocolError
from areal_sched.events import Event, RolloutsInterrupted, ServerLost, WeightsLoaded
from areal_sched.fold_commands import COMMAND_FOLDS
from areal_sched.fold_events import EVENT_FOLDS
from areal_sched.journal import JournalReader, Measured
from areal_sched.limits import Limits
from areal_sched.measurements import (
    EngineActivity,
    Measurement,
    ServerActivity,
    ServerSpan,
    TrainerActivity,
    TrainerSpan,
)
from areal_sched.records import Phase, Rollout
from areal_sched.state import ClusterState

SERVER_ACTIVITIES: tuple[str, ...] = get_args(ServerActivity)
"""Names of the codes in the column ``activity`` of server spans."""

TRAINER_ACTIVITIES: tuple[str, ...] = get_args(TrainerActivity)
"""Names of the codes in the column ``activity`` of trainer spans."""

ENGINE_ACTIVITIES: tuple[str, ...] = get_args(EngineActivity)
"""Names of the codes in the column ``activity`` of engine steps."""

_ENGINE_CODE = {name: code for code, name in enumerate(ENGINE_ACTIVITIES)}
_SERVER_CODE = {name: code for code, name in enumerate(SERVER_ACTIVITIES)}
_TRAINER_CODE = {name: code for code, name in enumerate(TRAINER_ACTIVITIES)}


class RunRecorder:
    """Collects one run.

    Attributes:
        facts: about the run.
        trajectories: one row per settled rollout, in the order they were settled, and after
            `ended` one per rollout still live. Columns ``rollout_id, group_id, prompt_tokens,
            generated_tokens, server_id, start_ns, finish_ns, ready_ns, first_version,
            last_version, interruptions, reward`` as in `areal_sched.records.Rollout`; the rest
            is the same for all rollouts settled together and comes from `settlement`.
        server_spans, trainer_spans: the measurements, one row each; ``activity`` is an index into
            `SERVER_ACTIVITIES` and `TRAINER_ACTIVITIES`.
        engine_steps: the same for steps of engines, ``activity`` an index into
            `ENGINE_ACTIVITIES`; empty for simulated runs.
        interrupts: ``now_ns, server_id, rollouts, asked_ns`` of each reported interruption of a
            server; ``asked_ns`` is when it was told to load weights, -1 where that is not known.
        truncated: the journal this was read from breaks off.
        note: where it does, and what could be read; None for a whole one.
        error: what stopped the run, or None.
    """

    def __init__(self, facts: RunFacts) -> None:
        self.facts = facts
        self.truncated = False
        self.note: str | None = None
        self.error: str | None = None
        self.trajectories = Columns(
            {
                "rollout_id": ("i4", "rollout_id"),
                "group_id": ("i4", "group.group_id"),
                "prompt_tokens": ("i4", "group.prompt_tokens"),
                "generated_tokens": ("i4", "generated_tokens"),
                "server_id": ("i4", "server_id"),
                "start_ns": ("i8", "start_ns"),
                "finish_ns": ("i8", "finish_ns"),
                "ready_ns": ("i8", "ready_ns"),
                "first_version": ("i4", "first_version"),
                "last_version": ("i4", "last_version"),
                "interruptions": ("i2", "interruptions"),
                "reward": ("f4", "reward"),
            }
        )
        self.server_spans = Columns(
            {
                "server_id": ("i4", "server_id"),
                "activity": ("i1", lambda span: _SERVER_CODE[span.activity]),
                "start_ns": ("i8", "start_ns"),
                "end_ns": ("i8", "end_ns"),
                "prefill_ns": ("i8", "prefill_ns"),
                "recompute_ns": ("i8", "recompute_ns"),
                "generated_tokens": ("i8", "generated_tokens"),
                "recomputed_tokens": ("i8", "recomputed_tokens"),
            }
        )
        self.trainer_spans = Columns(
            {
                "activity": ("i1", lambda span: _TRAINER_CODE[span.activity]),
                "weight_version": ("i4", "weight_version"),
                "start_ns": ("i8", "start_ns"),
                "end_ns": ("i8", "end_ns"),
                "waiting_ns": ("i8", "waiting_ns"),
                "micro_batches": ("i4", "micro_batches"),
            }
        )
        self.engine_steps = Columns(
            {
                "server_id": ("i4", "server_id"),
                "activity": ("i1", lambda span: _ENGINE_CODE[span.activity]),
                "start_ns": ("i8", "start_ns"),
                "end_ns": ("i8", "end_ns"),
                "forward_ns": ("i8", "forward_ns"),
                "steps": ("i4", "steps"),
                "rollouts": ("i4", "rollouts"),
                "context_tokens": ("i8", "context_tokens"),
                "new_tokens": ("i8", "new_tokens"),
            }
        )
        self.interrupts = Columns(
            {
                "now_ns": ("i8", lambda row: row[0]),
                "server_id": ("i4", lambda row: row[1]),
                "rollouts": ("i4", lambda row: row[2]),
                "asked_ns": ("i8", lambda row: row[3]),
            }
        )
        # One entry per call of `settled`: rollouts settled together share these facts.
        self._calls: dict[str, array[int]] = {
            name: array("q")
            for name in ("rows", "phase", "settled_ns", "train_ns", "consumed_version")
        }
        self._asked_ns: dict[int, int] = {}
        self._ended_ns = -1

    # ---- hooks ---------------------------------------------------------------------------------

    def settled(self, rollouts: Sequence[Rollout]) -> None:
        """Take rollouts that have just been settled together: a `SettledHook`."""
        if not rollouts:
            return
        first = rollouts[0]
        calls = self._calls
        calls["rows"].append(len(rollouts))
        calls["phase"].append(first.phase)
        calls["settled_ns"].append(first.settled_ns)
        calls["train_ns"].append(first.train_ns)
        calls["consumed_version"].append(first.consumed_version)
        self.trajectories.extend(rollouts)

    def measured(self, measurement: Measurement) -> None:
        """Take a measurement: call it beside `JournalWriter.measure`."""
        if isinstance(measurement, ServerSpan):
            self.server_spans.append(measurement)
        elif isinstance(measurement, TrainerSpan):
            self.trainer_spans.append(measurement)
        else:
            self.engine_steps.append(measurement)

    def handled(self, now_ns: int, event: Event, commands: tuple[Command, ...]) -> None:
        """Take a handled event with the commands it led to: call it beside `JournalWriter.record`.

        Keeps interruptions, and how long ago the server was told to load weights.
        """
        if isinstance(event, RolloutsInterrupted):
            self.interrupted(now_ns, event, self._asked_ns.pop(event.server_id, -1))
        elif isinstance(event, WeightsLoaded):
            self._asked_ns.pop(event.server_id, None)  # there was nothing to interrupt
        elif isinstance(event, ServerLost):
            self._asked_ns.pop(event.server_id, None)
        for command in commands:
            if isinstance(command, LoadWeights):
                self._asked_ns[command.server_id] = now_ns

    def interrupted(self, now_ns: int, event: RolloutsInterrupted, asked_ns: int = -1) -> None:
        """Take an interruption; `handled` does it by itself.

        Args:
            now_ns: when it was handled.
            event: the interruption.
            asked_ns: when `LoadWeights` was given to that server; -1 if not known, or if the
                server was interrupted for another reason.
        """
        self.interrupts.append((now_ns, event.server_id, len(event.progress), asked_ns))

    def ended(self, now_ns: int, live: Iterable[Rollout] = (), error: str | None = None) -> None:
        """Take the end of the run.

        Args:
            now_ns: when it ended.
            live: rollouts not settled by then, ``state.rollouts.values()``; without them, what
                was in flight is undercounted towards the end.
            error: what stopped it, if it did not end as planned.
        """
        self._ended_ns = now_ns
        self.error = error
        phase = attrgetter("phase")
        for _, rollouts in groupby(sorted(live, key=phase), phase):
            self.settled(list(rollouts))

    # ---- columns that rollouts settled together share ------------------------------------------

    def settlement(self, name: str) -> Ints:
        """One of ``phase, settled_ns, train_ns, consumed_version`` per trajectory, shape (rows,).

        ``phase`` is an `areal_sched.Phase`; the others are -1 where a rollout has none.
        """
        return np.repeat(self._call(name), self._call("rows"))

    def _call(self, name: str) -> Ints:
        return np.array(self._calls[name], np.int64)

    def trained_batches(self) -> dict[str, Ints]:
        """The training steps in order, shape (steps,).

        Returns:
            ``first_row`` and ``end_row`` (the step's rows in `trajectories`), ``train_ns`` and
            ``settled_ns`` (its start and end), ``weight_version`` (the one it made).
        """
        rows = self._call("rows")
        ends = np.cumsum(rows)
        trained = self._call("phase") == Phase.TRAINED
        if self._ended_ns >= 0:
            # Of a journal that breaks off: steps after the last moment known of all devices.
            trained &= self._call("settled_ns") <= self._ended_ns
        return {
            "first_row": (ends - rows)[trained],
            "end_row": ends[trained],
            "train_ns": self._call("train_ns")[trained],
            "settled_ns": self._call("settled_ns")[trained],
            "weight_version": self._call("consumed_version")[trained] + 1,
        }

    @property
    def end_ns(self) -> int:
        """When the run ended: as told by `ended`, else when the last span did."""
        if self._ended_ns >= 0:
            return self._ended_ns
        ends = [spans["end_ns"] for spans in (self.server_spans, self.trainer_spans)]
        return max((int(x.max()) for x in ends if len(x)), default=0)

    @property
    def covered_ns(self) -> int:
        """Until when every server and the trainer have told what they did.

        For a whole run the end; for a journal that breaks off, the moment up to which accounts
        can be made.
        """
        last = [int(self.trainer_spans["end_ns"].max(initial=0))]
        servers, ends = self.server_spans["server_id"], self.server_spans["end_ns"]
        if len(servers):
            latest = np.zeros(int(servers.max()) + 1, np.int64)
            np.maximum.at(latest, servers, ends)
            last.append(int(latest[np.unique(servers)].min()))
        return min(last)


def read_run(path: Path | str) -> RunRecorder:
    """Fold a journal into a recorder, without a scheduler.

    A journal that breaks off, or whose run was stopped by an error, is read up to there; see
    ``truncated`` and ``error``.

    Raises:
        JournalError: no journal, a broken line, or events and commands that contradict each
            other; the message names the line.
        AnalysisError: the header lacks facts.
    """
    reader = JournalReader(path)
    facts = RunFacts.from_header(reader.header, path)
    try:
        limits = Limits(**reader.header["limits"])
    except (KeyError, TypeError, ConfigError) as exc:
        raise AnalysisError(f"{path}: header: limits: {exc}") from None
    recorder = RunRecorder(facts)
    state = ClusterState(limits, recorder.settled)
    error: str | None = None
    line = 1
    try:
        for item in reader:
            line = item.line
            if isinstance(item, Measured):
                recorder.measured(item.measurement)
                continue
            error = error or item.error
            if error is not None:
                continue  # what was decided after it is void; spans may still follow
            state.now_ns = item.now_ns
            event = item.event
            EVENT_FOLDS[type(event)](state, event)
            for command in item.commands:
                COMMAND_FOLDS[type(command)](state, command)
            recorder.handled(item.now_ns, event, item.commands)
    except (ProtocolError, KeyError) as exc:
        raise JournalError(f"{path}, line {line}: {exc}; read up to it: {reader.read}") from None
    recorder.truncated = reader.truncated
    recorder.note = reader.note()
    whole = error is None and not reader.truncated
    end_ns = (recorder.end_ns or state.now_ns) if whole else recorder.covered_ns
    recorder.ended(end_ns, state.rollouts.values(), error)
    return recorder


def journal_sha256(path: Path | str) -> str:
    """Hash of a journal's uncompressed lines, as `JournalWriter.sha256` gives it.

    Raises:
        JournalError: the file cannot be read or is no gzip file.
    """
    digest = hashlib.sha256()
    unzip = zlib.decompressobj(31)  # 31: expect a gzip header
    try:
        with Path(path).open("rb") as stream:
            while block := stream.read(1 << 18):
                digest.update(unzip.decompress(block))
    except OSError as exc:
        raise JournalError(f"{path}: {exc.strerror or exc}") from None
    except zlib.error as exc:
        raise JournalError(f"{path}: not a gzip file, or damaged ({exc})") from None
    return digest.hexdigest()
