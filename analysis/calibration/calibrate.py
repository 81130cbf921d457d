"""From journals of real runs to all that a simulation needs to be told about their times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.calibration.client import ClientTimes, Samples, collect
from analysis.calibration.engine import EngineFit, Part, busy_between, fit_engine, slowness
from analysis.calibration.host import Demand, demand_of
from analysis.calibration.least_squares import Fit, Floats, fit
from analysis.calibration.rewards import RewardTimes, reward_times, workload
from analysis.calibration.trainer import TrainerFit, TrainerLayout, fit_trainer
from analysis.errors import AnalysisError
from analysis.recorder import SERVER_ACTIVITIES, read_run
from analysis.steps import transient_steps
from areal_sched.events import ServerJoined
from areal_sched.journal import Entry, JournalReader

if TYPE_CHECKING:
    import pandas as pd

NS = 1e-9
OTHERS_APART = 0.5
"""What one more server adds to a load is looked for where the number of others that loaded at the
same time, the tenths at both ends left out, differs by so much."""

LAYOUT = "layout"
"""Key of the header of a real run's journal; see `areal_real.run.layout_of`."""


LAYOUT_KEYS = (
    *("device", "host_cores", "group_size", "prompts_per_step"),
    *("max_prompt_tokens", "max_response_tokens", "data_parallel", "pipeline_parallel"),
    *("tensor_parallel", "trainer_threads", "minibatches", "micro_batch_tokens"),
    *("recompute_proximal", "reward_workers", "checkpoint_every_steps"),
)
SET_UP = {
    LAYOUT: (
        *("device", "host_cores", "tensor_parallel", "pipeline_parallel"),
        *("data_parallel", "trainer_threads"),
    ),
    "run": ("gpus_per_server", "servers"),
}
"""What journals that are fitted to together must have in common. That the model is the same is for
the caller to know: a journal does not say."""


@dataclass(frozen=True, slots=True)
class Room:
    """What one server holds: rollouts at once, and tokens in its KV cache."""

    max_running_rollouts: int
    kv_cache_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was fitted, to what, and how well.

    Attributes:
        header: of the first journal, its ``layout`` among it.
        steps: training steps that were used.
        engine, trainer, load, client, rewards: the fits; ``load`` is of weights into a server.
        demand: how a machine is shared, if it is.
        lengths: of the trained rollouts, a workload table.
        room: of a server of the first run.
        names: of the journals.
        notes: journals that break off, and how far they could be read.
    """

    header: Mapping[str, Any]
    steps: int
    engine: EngineFit
    demand: Demand | None
    trainer: TrainerFit
    load: Fit | None
    client: ClientTimes
    rewards: RewardTimes | None
    lengths: pd.DataFrame
    room: Room
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def layout(self) -> Mapping[str, Any]:
        """The header's."""
        layout: Mapping[str, Any] = self.header[LAYOUT]
        return layout

    def fits(self) -> list[Fit]:
        """All least-squares fits, for tables."""
        trainer = self.trainer
        found = [
            self.engine.steps,
            trainer.overhead,
            trainer.proximal,
            trainer.minibatch,
            trainer.optimizer,
            trainer.publish,
            trainer.save,
            self.load,
        ]
        return [x for x in found if x is not None]


def calibrate(
    paths: Sequence[Path], *, first_step: int | None = None, last_step: int | None = None
) -> Calibration:
    """Fit costs and workload to journals of real runs of one set-up.

    Args:
        paths: the journals. Several help where one does not vary enough; the model must be the
            same, and what `SET_UP` names.
        first_step: the first training step to use; by default what `transient_steps` leaves out
            is left out.
        last_step: the last one to use; by default the last one there is.

    Raises:
        AnalysisError: a journal cannot support it; the message says what is missing.
    """
    parts: list[tuple[Part, TrainerLayout]] = []
    headers = []
    steps = 0
    for path in paths:
        header = JournalReader(path).header
        if not isinstance(header.get(LAYOUT), Mapping):
            raise AnalysisError(
                f"{path}: the header has no {LAYOUT!r}: this is the journal of a simulation, or of"
                " an areal-real before that was recorded; costs are fitted to those of real runs"
            )
        for key in LAYOUT_KEYS:
            if key not in header[LAYOUT]:
                raise AnalysisError(f"{path}: the header's {LAYOUT!r} has no {key!r}")
        headers.append(header)
        recorder = read_run(path)
        batches = recorder.trained_batches()
        settled = batches["settled_ns"]
        start_up = transient_steps(np.diff(settled, prepend=0).tolist())
        first = start_up if first_step is None else first_step - 1
        end = len(settled) if last_step is None else min(last_step, len(settled))
        if end - first < 1:
            raise AnalysisError(
                f"{path}: has {len(settled)} training steps, none of them from step {first + 1}"
                + ("" if last_step is None else f" to {last_step}")
            )
        since = int(settled[first - 1]) if first > 0 else 0
        part = Part(recorder, since, int(settled[end - 1]))
        parts.append((part, _trainer_layout(header[LAYOUT])))
        steps += end - first
    only = [part for part, _ in parts]
    for header in headers[1:]:
        for table, keys in SET_UP.items():
            for key in keys:
                a, b = headers[0][table].get(key), header[table].get(key)
                if a != b:
                    raise AnalysisError(
                        f"{table}.{key} is {a!r} in the first journal and {b!r} in another: costs"
                        " belong to one set-up"
                    )
    try:
        engine = fit_engine(only, shared=headers[0][LAYOUT]["host_cores"] is not None)
        servers = int(headers[0]["run"]["servers"])
        demand = demand_of(headers[0][LAYOUT], servers, engine.slowdown)
        trainer = fit_trainer(parts, demand)
        lengths = workload(only)
    except ValueError as exc:
        raise AnalysisError(f"{', '.join(map(str, paths))}: {exc}") from None
    return Calibration(
        header=headers[0],
        steps=steps,
        engine=engine,
        demand=demand,
        trainer=trainer,
        load=fit_load(only, engine.slowdown),
        client=_client(paths, only),
        rewards=reward_times(
            JournalReader(paths[0]),
            headers[0][LAYOUT]["reward_workers"],
            only[0].since_ns,
            only[0].until_ns,
        ),
        names=tuple(map(_name, paths)),
        notes=tuple(
            f"{path}: {part.recorder.note}"
            for path, part in zip(paths, only, strict=True)
            if part.recorder.note
        ),
        lengths=lengths,
        room=room_of(paths[0]),
    )


def _name(path: Path) -> str:
    """What a journal is called: its file or, in a run directory, its folder."""
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    return path.absolute().parent.name if name == "journal" else name


def _trainer_layout(layout: Mapping[str, Any]) -> TrainerLayout:
    names = ("data_parallel", "pipeline_parallel", "minibatches", "micro_batch_tokens")
    return TrainerLayout(**{name: layout[name] for name in names})


def room_of(path: Path) -> Room:
    """What a server of a run holds.

    Raises:
        AnalysisError: no server joined.
    """
    for item in JournalReader(path):
        if isinstance(item, Entry) and isinstance(item.event, ServerJoined):
            return Room(item.event.max_running_rollouts, item.event.kv_cache_tokens)
    raise AnalysisError(f"{path}: no server joined")


def fit_load(parts: Sequence[Part], slowdown: float) -> Fit | None:
    """Of weights into a server, what a shared machine costs taken off.

    What other servers add that load at the same time can be told apart only where journals have
    both: of an update of all at once and of a rolling one, say. Otherwise the time is fitted as it
    was, with as many others as there were.

    Args:
        parts: of journals.
        slowdown: of a server by a trainer at work.

    Returns:
        With the coefficient ``load_s``, and ``load_shared_s`` where it is determined; None without
        a load.
    """
    seconds, slow, others = [], [], []
    for part in parts:
        spans = part.recorder.server_spans
        start, end = np.asarray(spans["start_ns"]), np.asarray(spans["end_ns"])
        loads = np.asarray(spans["activity"]) == SERVER_ACTIVITIES.index("load")
        loads &= (start >= part.since_ns) & (end <= part.until_ns)
        length = (end - start)[loads]
        shared = busy_between(part.recorder, start[loads], end[loads]) / np.maximum(length, 1)
        seconds.append(length * NS)
        slow.append(slowness(shared, slowdown))
        others.append(_overlap(start[loads], end[loads]) / np.maximum(length, 1))
    joined = np.concatenate(seconds)
    if not len(joined):
        return None
    alone = np.concatenate(slow)[:, None]
    beside = np.concatenate(others)[:, None]
    scale = np.ones(len(joined))
    few, many = np.percentile(beside, (10, 90))
    if many - few >= OTHERS_APART:
        both = np.hstack([alone, alone * beside])
        found = fit("load weights", ("load_s", "load_shared_s"), both, joined, scale)
        if all(coefficient.determined for coefficient in found.coefficients):
            return found
    return fit("load weights", ("load_s",), alone, joined, scale)


def _overlap(start_ns: Floats, end_ns: Floats) -> Floats:
    """Of each interval, its time in common with each other one, summed."""
    common = np.minimum(end_ns[:, None], end_ns) - np.maximum(start_ns[:, None], start_ns)
    np.fill_diagonal(common, 0)
    summed: Floats = np.maximum(common, 0).sum(axis=1)
    return summed


def _client(paths: Sequence[Path], parts: Sequence[Part]) -> ClientTimes:
    """Medians over what all journals tell."""
    samples = Samples()
    for path, part in zip(paths, parts, strict=True):
        collect(samples, JournalReader(path), part.since_ns, part.until_ns)
    return samples.times()
