"""Follows a journal while it is written, and replays it at once: where the run stands now."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TypeAlias, get_args

from areal_sched import commands as c
from areal_sched.codec import decode
from areal_sched.controller import Controller
from areal_sched.events import (
    Event,
    RolloutFailed,
    RolloutsInterrupted,
    ServerLost,
    TrainStepFailed,
    WeightsLoaded,
)
from areal_sched.limits import Limits
from areal_sched.load import load
from areal_sched.measurements import Measurement
from areal_sched.state import ClusterState

Entry: TypeAlias = tuple[int, Event, tuple[c.Command, ...]]
"""Time in ns, event, commands."""

_GZIP = 31
_MEASUREMENTS = get_args(Measurement)
ABORTED = "aborted"
"""Reason of rollouts that the scheduler gave up, which is no failure."""


class Diverged(Exception):
    """The scheduler, asked again, decides otherwise than the journal says."""


class JournalTail:
    """A journal that grows, and is replaced when its run is resumed.

    Args:
        path: the journal; it need not be there yet.

    Attributes:
        entries: (time in ns, event, commands) of all entries so far.
        lost: rollouts that failed with each entry, by its place; aborted ones are not counted.
        resumed: rollouts that a lost server or a lost step gave back with each entry.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._inode = -1
        self._reset()

    def _reset(self) -> None:
        self._unzip = zlib.decompressobj(_GZIP)
        self._rest = b""
        self._controller: Controller | None = None
        self.entries: list[Entry] = []
        self.lost: dict[int, int] = {}
        self.resumed: dict[int, int] = {}

    @property
    def state(self) -> ClusterState:
        """The state after the last entry that was read."""
        if self._controller is None:
            return ClusterState(Limits(train_batch_rollouts=1, group_size=1))
        return self._controller.state

    @property
    def steps(self) -> int:
        """Training steps done."""
        return int(self.state.weight_version)

    def read(self) -> ClusterState:
        """Take in what has been written since the last look; returns the state then.

        Raises:
            Diverged: the journal does not replay.
        """
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            return self.state
        if self._file is None or inode != self._inode:
            if self._file is not None:
                self._file.close()
            self._file = self._path.open("rb")
            self._inode = inode
            self._reset()
        while data := self._file.read(1 << 16):
            *lines, self._rest = (self._rest + self._unzip.decompress(data)).split(b"\n")
            for line in lines:
                self._take(line)
        return self.state

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, line: bytes) -> None:
        if self._controller is None:
            header = json.loads(line)
            limits = Limits(**header["limits"])
            scheduler = load(header["scheduler"], limits, header["options"])
            self._controller = Controller(scheduler, limits, record=None)
            return
        now_ns, first, *more = json.loads(line)
        event = decode(first)
        if isinstance(event, _MEASUREMENTS):
            return
        commands = tuple(map(decode, more[0])) if more else ()
        place = len(self.entries)
        state = self._controller.state
        if isinstance(event, RolloutFailed) and event.reason != ABORTED:
            self.lost[place] = 1
        elif isinstance(event, ServerLost) and event.server_id in state.servers:
            self.resumed[place] = len(state.servers[event.server_id].rollouts)
        elif isinstance(event, TrainStepFailed):
            self.resumed[place] = len(state.training)
        again = self._controller.handle(event, now_ns=now_ns)  # type: ignore[arg-type]
        self.entries.append((now_ns, event, commands))  # type: ignore[arg-type]
        if again != commands:
            raise Diverged(f"{self._path}: entry {place}: {again} where {commands} is recorded")

    def common(self, other: list[Entry]) -> int:
        """How many entries this journal begins with that another has too."""
        count = 0
        for mine, theirs in zip(self.entries, other, strict=False):
            if mine != theirs:
                break
            count += 1
        return count


def unusual(entries: Sequence[Entry], first: int = 0) -> str:
    """What events tell of a fault, from a place in a journal on; nothing of them may."""
    told: Counter[str] = Counter()
    loading: set[int] = set()
    for place, (_, event, commands) in enumerate(entries):
        if place >= first:
            if isinstance(event, RolloutFailed) and event.reason != ABORTED:
                told[f"RolloutFailed: {event.reason}"] += 1
            elif isinstance(event, RolloutsInterrupted) and event.server_id not in loading:
                told["RolloutsInterrupted"] += len(event.progress)
            elif isinstance(event, ServerLost | TrainStepFailed):
                told[type(event).__name__] += 1
        if isinstance(event, WeightsLoaded | ServerLost):
            loading.discard(event.server_id)
        loading |= {x.server_id for x in commands if isinstance(x, c.LoadWeights)}
    return ", ".join(f"{count} x {what}" if count > 1 else what for what, count in told.items())
