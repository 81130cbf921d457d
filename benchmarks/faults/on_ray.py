"""Faults of a training on a Ray cluster: lost nodes, lost actors."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from benchmarks.faults.bench import Bench, Fault, Scenario
from benchmarks.faults.moments import HTTP, back, generating, in_step, kill, trainer_ready
from benchmarks.faults.parts import IN_STEP, LOST
from benchmarks.ray_nodes import Nodes, environment_of_ray, ray_nodes

RANK = "areal_real.training.worker"
SERVER_ACTOR, RANK_ACTOR = "ray::ServerActor", "ray::RankActor"


class Cluster:
    """A head without room, which must not be lost, and nodes with room for one process each."""

    def __init__(self) -> None:
        self._nodes: Nodes

    @contextlib.contextmanager
    def around(self, home: Path) -> Iterator[Mapping[str, str]]:
        """Start it; a training finds it by ``RAY_ADDRESS``."""
        with environment_of_ray() as environment, ray_nodes(environment, (0, 1, 1)) as self._nodes:
            yield {"RAY_ADDRESS": self._nodes.address}

    def raylet_of(self, word: str) -> psutil.Process:
        """The raylet of the node where a process with this word in its command line runs."""
        for pid in self._nodes.raylets[1:]:
            with contextlib.suppress(psutil.Error):
                raylet = psutil.Process(pid)
                if _below(raylet, word):
                    return raylet
        raise LookupError(f"no node has a process with {word!r} in its command line")

    def lose_node_of(self, word: str, bench: Bench) -> None:
        """Kill the node where such a process runs, as a power cut would, and bring another."""
        raylet = self.raylet_of(word)
        for process in (raylet, *raylet.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                kill(process)
        self._nodes.add()

    def kill_actor(self, word: str, bench: Bench) -> None:
        """Kill an actor's process: what it holds goes with it."""
        kill(_below(self.raylet_of(word), word)[0])


def _below(raylet: psutil.Process, word: str) -> list[psutil.Process]:
    found = []
    for process in raylet.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if word in " ".join(process.cmdline()):
                found.append(process)
    return found


def _unable() -> str | None:
    return None if importlib.util.find_spec("ray") else "Ray is not installed"


_cluster = Cluster()


def _server(what: str, lose: object, word: str) -> Fault:
    return Fault(
        what=what,
        act=lambda bench: lose(word, bench),  # type: ignore[operator]
        aim=generating,
        noted=LOST,
        back=back(0),
    )


def _trainer(what: str, lose: object, word: str) -> Fault:
    return Fault(
        what=what,
        act=lambda bench: lose(word, bench),  # type: ignore[operator]
        aim=in_step,
        noted=IN_STEP,
        back=trainer_ready,
    )


RAY = Scenario(
    name="ray",
    steps=60,
    more=("--engine", "ray"),
    around=_cluster.around,
    unable=_unable,
    faults=[
        _server("kill -9 of a Ray actor with a server", _cluster.kill_actor, SERVER_ACTOR),
        _trainer("kill -9 of a Ray actor with the trainer", _cluster.kill_actor, RANK_ACTOR),
        _server("kill -9 of a Ray node with a server", _cluster.lose_node_of, HTTP),
        _trainer("kill -9 of a Ray node with the trainer", _cluster.lose_node_of, RANK),
        _server("kill -9 of another Ray node with a server", _cluster.lose_node_of, HTTP),
    ],
)
