"""Small set-ups with direct costs, and one call to simulate them with everything recorded."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.facts import RunFacts
from analysis.recorder import RunRecorder
from areal_sched import (
    Command,
    Entry,
    Event,
    JournalWriter,
    Limits,
    Measurement,
    RolloutsInterrupted,
    StartTrainStep,
    TrainStepFinished,
    built_in,
    load,
)
from areal_sched.packing import pack
from areal_sim.costs import FittedCosts, ServerCost, TrainerCost
from areal_sim.costs.protocol import FS_PER_NS
from areal_sim.simulation import Setup, Simulation
from traces import GroupBatch

MS = 1_000_000
"""Nanoseconds of a millisecond."""

NS_PER_S = 1_000_000_000


class Listed:
    """A workload whose lengths are written out: ``lengths(group, sample)`` tokens.

    Attributes:
        prompt_tokens: of every prompt.
    """

    def __init__(self, lengths: Callable[[int, int], int], prompt_tokens: int = 1) -> None:
        self.lengths = lengths
        self.prompt_tokens = prompt_tokens

    def groups(self, first_group: int, count: int, *, group_size: int, step: float) -> GroupBatch:
        numbers = range(first_group, first_group + count)
        return GroupBatch(
            np.full(count, self.prompt_tokens, np.int64),
            np.array([[self.lengths(g, s) for s in range(group_size)] for g in numbers], np.int64),
        )


def constant_lengths(tokens: int, prompt_tokens: int = 1) -> Listed:
    """Every answer has this many tokens."""
    return Listed(lambda group, sample: tokens, prompt_tokens)


def drawn_lengths(seed: int, draw: Callable[[np.random.Generator], int], prompt: int = 1) -> Listed:
    """Independent lengths, each from a generator of its own, so that they are random access."""

    def lengths(group: int, sample: int) -> int:
        return draw(np.random.Generator(np.random.Philox(key=[seed, group * 64 + sample])))

    return Listed(lengths, prompt)


def server_cost(
    *,
    base_ns: float = MS,
    rollout_ns: float = 0,
    kv_token_ns: float = 0,
    prefill_base_ns: float = 0,
    prefill_token_ns: float = 0,
    prefill_pair_ns: float = 0,
) -> ServerCost:
    """A server's coefficients in nanoseconds; by default a decode step takes 1 ms, all else 0."""
    return ServerCost(
        decode_base_fs=round(base_ns * FS_PER_NS),
        decode_per_rollout_fs=round(rollout_ns * FS_PER_NS),
        decode_per_kv_token_fs=round(kv_token_ns * FS_PER_NS),
        prefill_base_fs=round(prefill_base_ns * FS_PER_NS),
        prefill_per_token_fs=round(prefill_token_ns * FS_PER_NS),
        prefill_per_token_pair_fs=round(prefill_pair_ns * FS_PER_NS),
    )


def trainer_cost(step_s: float = 0.0, **more: Any) -> TrainerCost:
    """A trainer whose every step takes `step_s` whatever the batch; `more` replaces fields."""
    zero = dict.fromkeys((f.name for f in dataclasses.fields(TrainerCost)), 0.0)
    return TrainerCost(**zero | {"pipeline_stages": 1, "step_overhead_s": step_s} | more)


def costs(
    server: ServerCost | None = None,
    trainer: TrainerCost | None = None,
    *,
    publish_s: float = 0.0,
    load_s: float = 0.0,
    load_shared_s: float = 0.0,
    switch_s: float = 0.0,
) -> FittedCosts:
    """Costs that are written out; by default training, publishing and loading take no time."""
    return FittedCosts(
        server_cost=server or server_cost(),
        trainer_cost=trainer or trainer_cost(),
        publish_s=publish_s,
        load_s=load_s,
        load_shared_s=load_shared_s,
        to_generate_s=switch_s,
        to_train_s=switch_s,
        source="a test",
    )


def one_micro_batch(sizes: Sequence[int]) -> list[list[list[list[int]]]]:
    """The whole batch in one micro-batch on one rank."""
    return pack(sizes, capacity=1 << 40, ranks=1)


def setup(limits: Limits, **changes: Any) -> Setup:
    """A run of 4 steps on one server with room for everything, changed as given."""
    known: dict[str, Any] = {
        "steps": 4,
        "servers": 1,
        "colocated": False,
        "max_running_rollouts": 4096,
        "kv_cache_tokens": 1 << 40,
        "prefill_chunk_tokens": 1 << 20,
        "costs": costs(),
        "layout": one_micro_batch,
        "source": constant_lengths(10),
        "max_response_tokens": 1 << 20,
    }
    return Setup(limits=limits, **known | changes)


def header(made: Setup, path: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A journal's header: one GPU a server, one for the trainer, or the same where colocated."""
    gpus = made.servers if made.colocated else made.servers + 1
    return {
        "scheduler": built_in().get(path, path),
        "options": dict(options),
        "limits": dataclasses.asdict(made.limits),
        "run": {
            "name": path,
            "gpus": gpus,
            "generation_gpus": made.servers,
            "gpus_per_server": 1,
            "servers": made.servers,
            "training_gpus": 1,
            "colocated": made.colocated,
            "unused_gpus": 0,
            "group_size": made.limits.group_size,
            "train_batch_rollouts": made.limits.train_batch_rollouts,
            "steps": made.steps,
            "seed": made.seed,
            "config_sha256": "",
        },
    }


class _Kept(io.BytesIO):
    """Still readable after `close`."""

    content = b""

    def close(self) -> None:
        if not self.closed:
            self.content = self.getvalue()
        super().close()


@dataclass
class Ran:
    """One simulated run, from `begin` over `end`, with all it recorded.

    Attributes:
        setup, path, options: what was simulated.
        simulation: the run itself.
        recorder: fed live.
        entries: as handed to the journal.
    """

    setup: Setup
    path: str
    options: Mapping[str, Any]
    simulation: Simulation
    recorder: RunRecorder
    entries: list[Entry]
    writer: JournalWriter
    stream: _Kept

    def end(self) -> Ran:
        """Close run, journal and recorder."""
        self.simulation.close()
        self.writer.close()
        self.recorder.ended(self.now_ns, self.simulation.state.rollouts.values())
        return self

    @property
    def now_ns(self) -> int:
        """When it ended."""
        return self.simulation.now_ns

    @property
    def journal(self) -> bytes:
        """The journal's bytes, after `end`."""
        return self.stream.content

    def save(self, folder: Path) -> Path:
        """The journal as a file."""
        path = folder / "journal.jsonl.gz"
        path.write_bytes(self.journal)
        return path

    def step_ends_ns(self) -> list[int]:
        """When each training step was finished."""
        return [e.now_ns for e in self.entries if isinstance(e.event, TrainStepFinished)]

    def batches(self) -> list[tuple[int, ...]]:
        """The rollouts of each training step, in its order."""
        return [
            tuple(command.rollout_ids)
            for entry in self.entries
            for command in entry.commands
            if isinstance(command, StartTrainStep)
        ]

    def interrupted(self) -> int:
        """How many rollouts were reported as interrupted."""
        events = (e.event for e in self.entries)
        return sum(len(e.progress) for e in events if isinstance(e, RolloutsInterrupted))

    def spans(self, name: str) -> int:
        """Sum of one column over all spans of servers."""
        return int(self.recorder.server_spans[name].sum())


def begin(made: Setup, path: str, options: Mapping[str, Any] | None = None) -> Ran:
    """A run at its beginning."""
    options = options or {}
    first = header(made, path, options)
    stream = _Kept()
    writer = JournalWriter(stream, first)
    recorder = RunRecorder(RunFacts.from_header(first))
    entries: list[Entry] = []

    def record(now_ns: int, event: Event, commands: tuple[Command, ...], error: str | None) -> None:
        writer.record(now_ns, event, commands, error)
        entries.append(Entry(len(entries) + 2, now_ns, event, commands, error))
        if isinstance(event, RolloutsInterrupted):
            recorder.interrupted(now_ns, event)

    def measure(now_ns: int, measurement: Measurement) -> None:
        writer.measure(now_ns, measurement)
        recorder.measured(measurement)

    simulation = Simulation(
        made,
        load(path, made.limits, options),
        record=record,
        measure=measure,
        on_settled=recorder.settled,
    )
    return Ran(made, path, options, simulation, recorder, entries, writer, stream)


def simulate(made: Setup, path: str = "areal", **options: Any) -> Ran:
    """Simulate to the end."""
    run = begin(made, path, options)
    assert run.simulation.run()
    return run.end()
