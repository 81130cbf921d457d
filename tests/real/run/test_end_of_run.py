"""The end of a run: the last weights on their way, and servers lost before the evaluation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from areal_real.errors import BackendError
from areal_real.evaluate import evaluate
from areal_real.folder import RunFolder
from areal_real.roles import RunningServer
from areal_real.rows import read_rows
from areal_real.tasks.problem import Problem
from tests.real.run.fakes import Counting, MadeUpBackend, MadeUpServer, MadeUpWorld, Troubles
from tests.real.run.test_run_laws import config_of, to_the_end

SLOW_TURNS = 200


class SlowLoads(MadeUpBackend):
    """Weights take far longer than anything else, and the trainer must not leave before them."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder, seed=1, troubles=Troubles())
        self.loading: set[MadeUpServer] = set()
        self.loading_at_the_end: int | None = None

    async def start_world(self, checkpoint: Path | None) -> MadeUpWorld:
        backend = self

        class World(MadeUpWorld):
            async def stop(self) -> None:
                if backend.loading_at_the_end is None:
                    backend.loading_at_the_end = len(backend.loading)

        return World(self, 0)

    async def start_server(self, server_id: int) -> MadeUpServer:
        backend = self

        class Server(MadeUpServer):
            async def _load(self, version: int, mode: str, life: int) -> None:
                backend.loading.add(self)
                for _ in range(SLOW_TURNS):
                    await asyncio.sleep(0)
                await super()._load(version, mode, life)
                backend.loading.discard(self)

            async def loads_done(self) -> None:
                while self in backend.loading:
                    await asyncio.sleep(0)

        return Server(self, server_id)


def test_the_trainer_stays_until_its_last_weights_have_arrived(tmp_path: Path) -> None:
    config = config_of({"class": "areal"}, steps=3, servers=2, every=1)
    backend = SlowLoads(RunFolder(tmp_path))
    assert to_the_end(config, tmp_path, backend).steps == 3
    assert backend.loading_at_the_end == 0


class OneProblem(Counting):
    def held_out(self) -> Sequence[Problem]:
        return [self.problem(0), self.problem(1)]


class LostAtTimes:
    """A server that is lost in some calls and, asked to use weights, comes back."""

    def __init__(self, losses: Sequence[str]) -> None:
        self.losses = list(losses)
        self.used: list[int] = []

    def _perhaps(self, what: str) -> None:
        if self.losses and self.losses[0] == what:
            self.losses.pop(0)
            raise BackendError(f"lost in {what} (made up)")

    async def use(self, version: int) -> None:
        self._perhaps("use")
        self.used.append(version)

    async def answer(self, input_ids: Sequence[int], max_new_tokens: int) -> list[int]:
        self._perhaps("answer")
        return [1]


class AlwaysRight:
    async def score(self, problem: Problem, answer: str) -> float:
        return 1.0


def evaluated(folder: RunFolder, server: LostAtTimes) -> list[dict[str, Any]]:
    config = config_of({"class": "areal"}, steps=3, servers=1, every=1)
    folder.make()
    folder.weights(0).mkdir(parents=True)
    asyncio.run(
        evaluate(
            config,
            folder,
            OneProblem(),
            [cast(RunningServer, server)],
            AlwaysRight(),
            lambda version, accuracy: None,
        )
    )
    return read_rows(folder.held_out)


@pytest.mark.parametrize("loss", ["use", "answer"])
def test_an_evaluation_outlives_the_loss_of_a_server(tmp_path: Path, loss: str) -> None:
    rows = evaluated(RunFolder(tmp_path), LostAtTimes([loss]))
    assert [(row["step"], row["accuracy"]) for row in rows] == [(0, 1.0)]


def test_a_server_that_is_lost_again_ends_the_evaluation(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(BackendError, match="lost in use"):
        evaluated(folder, LostAtTimes(["answer", "use"]))
    assert read_rows(folder.held_out) == []
