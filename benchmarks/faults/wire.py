"""Faults of the wire between a run and its servers: replies lost, cut, late and doubled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.faults.bench import Bench, Fault, Scenario
from benchmarks.faults.moments import generating
from benchmarks.faults.proxy import Proxy, Trick
from benchmarks.faults.through_proxy import VARIABLE

GENERATE = "/generate"
ABORT = "/abort_request"
LOAD = "/update_weights_from_disk"
PROBE = "/server_info"

UNNOTICED: Mapping[tuple[str | None, Trick], str] = {
    (None, Trick.LATE): "not at all: it is waited for",
    (GENERATE, Trick.SILENCE): "the next interruption waits 20 s for it, then takes what had come",
    (GENERATE, Trick.DOUBLE_EVENTS): "by the server's count of tokens; the second is left out",
    (GENERATE, Trick.DOUBLE_REQUEST): "not at all: the server refuses the second",
    (LOAD, Trick.LOSE): "a broken connection; the request is repeated",
    (LOAD, Trick.CUT): "a broken connection; the request is repeated",
    (LOAD, Trick.DOUBLE_REPLY): "a broken connection; the request is repeated",
    (LOAD, Trick.DOUBLE_REQUEST): "not at all: loading twice is loading once",
    (ABORT, Trick.LOSE): "a broken connection; the request is repeated",
    (ABORT, Trick.DOUBLE_REQUEST): "not at all: stopping twice is stopping once",
    (PROBE, Trick.LOSE): "a broken connection; it is asked again",
}
"""What a fault leads to that leaves no trace in the journal."""


class Wire:
    """The proxy of a scenario, while that lasts."""

    def __init__(self) -> None:
        self._proxy: Proxy | None = None

    @contextlib.contextmanager
    def around(self, folder: Path) -> Iterator[Mapping[str, str]]:
        """Have a proxy; gives the variable that sends requests there."""
        with Proxy() as self._proxy:
            yield {VARIABLE: self._proxy.url}

    def play(self, path: str, trick: Trick, count: int) -> Callable[[Bench], None]:
        """Play a trick, and wait until it has been played to the end."""

        def act(bench: Bench) -> None:
            assert self._proxy is not None
            rule = self._proxy.play(path, trick, count)
            bench.until(lambda: rule.played >= count, f"requests for {path}")

        return act


def _scenario() -> Scenario:
    wire = Wire()

    def fault(what: str, path: str, trick: Trick, count: int = 1) -> Fault:
        return Fault(
            what=what,
            act=wire.play(path, trick, count),
            aim=generating,
            noticed=UNNOTICED.get((path, trick), UNNOTICED.get((None, trick), "")),
            faults=count,
        )

    return Scenario(
        name="wire",
        steps=200,
        module="benchmarks.faults.through_proxy",
        around=wire.around,
        faults=[
            fault("generate: reply lost after the work was done", GENERATE, Trick.LOSE),
            fault("generate: eight replies lost", GENERATE, Trick.LOSE, 8),
            fault("generate: reply cut in its stream", GENERATE, Trick.CUT),
            fault("generate: four replies cut in their streams", GENERATE, Trick.CUT, 4),
            fault("generate: no reply, and no end of it", GENERATE, Trick.SILENCE),
            fault("generate: reply 5 s late", GENERATE, Trick.LATE),
            fault("generate: every event of a stream twice", GENERATE, Trick.DOUBLE_EVENTS),
            fault("generate: reply twice", GENERATE, Trick.DOUBLE_REPLY),
            fault("generate: request twice", GENERATE, Trick.DOUBLE_REQUEST),
            fault("generate: request twice, second reply", GENERATE, Trick.SECOND_REPLY),
            fault("load weights: reply lost after the work was done", LOAD, Trick.LOSE),
            fault("load weights: reply cut", LOAD, Trick.CUT),
            fault("load weights: reply 5 s late", LOAD, Trick.LATE),
            fault("load weights: request twice", LOAD, Trick.DOUBLE_REQUEST),
            fault("load weights: reply twice", LOAD, Trick.DOUBLE_REPLY),
            fault("interrupt: reply lost", ABORT, Trick.LOSE),
            fault("interrupt: request twice", ABORT, Trick.DOUBLE_REQUEST),
            fault("pulse: reply lost", PROBE, Trick.LOSE),
            fault("pulse: reply 5 s late", PROBE, Trick.LATE),
        ],
    )


WIRE = _scenario()
