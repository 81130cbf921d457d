"""Laws of a real run, whatever goes wrong: with made-up parts that misbehave as no real one can."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.accounts import accounts
from analysis.recorder import read_run
from areal_real import live
from areal_real.checkpoints import Checkpoints
from areal_real.config import RealConfig, parse_config
from areal_real.errors import BackendError
from areal_real.folder import RunFolder
from areal_real.live import Setting
from areal_real.run import Outcome, Run, header_of
from areal_sched import JournalReader, Limits, load, replay
from areal_sched.commands import StartTrainStep
from areal_sched.config.options import toml_value
from areal_sched.events import TrainStepFinished
from tests.real.run.fakes import (
    MOST_TOKENS,
    Counting,
    MadeUpBackend,
    MadeUpServer,
    Silent,
    Troubles,
)

MOST_RESUMPTIONS = 200

SCHEDULERS: list[dict[str, Any]] = [
    {"class": "areal"},
    {"class": "areal", "mode": "drain", "unit": "group"},
    {"class": "areal", "barrier": False},
    {"class": "areal", "servers_at_once": 1},
    {"class": "areal", "servers_at_once": 1, "mode": "drain", "routing": "least_kv"},
    {"class": "synchronous"},
    {"class": "one_step_off"},
    {"class": "bounded_lag"},
    {"class": "in_flight"},
    {"class": "partial_rollout"},
]


@pytest.fixture(autouse=True, scope="module")
def _growing_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "GROW_S", 0.0)
        yield


def config_of(
    scheduler: dict[str, Any], steps: int, servers: int, every: int, joining: int = 0
) -> RealConfig:
    eta = 0 if scheduler["class"] == "synchronous" else 2
    limits: dict[str, Any] = {"eta": eta, "max_rollouts_in_flight": 12}
    if scheduler["class"] == "bounded_lag":
        limits["max_lag"] = 2
    document = {
        "workload": {
            "prompts_per_step": 3,
            "group_size": 2,
            "max_prompt_tokens": 4,
            "max_response_tokens": MOST_TOKENS,
            "steps": steps,
        },
        "limits": limits,
        "scheduler": scheduler,
        "real": {
            "checkpoint_every_steps": every,
            "server": {
                "count": servers,
                "max_count": servers + joining,
                "kv_cache_tokens": 1000,
            },
        },
    }
    text = "".join(
        f"[{table}]\n" + "".join(f"{key} = {toml_value(value)}\n" for key, value in keys.items())
        for table, keys in document.items()
    )
    return parse_config(text)


def to_the_end(config: RealConfig, folder: Path, backend: MadeUpBackend) -> Outcome:
    """Run and resume until it is done: what `areal-real train`, or its user, does."""
    for _ in range(MOST_RESUMPTIONS):
        resume = Checkpoints(folder / "checkpoints", keep=1).newest() is not None
        with contextlib.suppress(BackendError):  # the trainer, or every server, lost for good
            return asyncio.run(_go(config, folder, backend, resume, None))
    raise AssertionError(f"not done after {MOST_RESUMPTIONS} resumptions")


async def _go(
    config: RealConfig, path: Path, backend: MadeUpBackend, resume: bool, turns: int | None
) -> Outcome:
    folder = RunFolder(path)
    setting = Setting(
        config=config,
        header=header_of(config, "test", "0" * 64),
        folder=folder,
        backend=backend,
        task=Counting(),
        watcher=Silent(),
        checkpoints=Checkpoints(folder.checkpoints, keep=config.real.keep_checkpoints),
    )
    work = asyncio.ensure_future(Run(setting).go(resume=resume))
    if turns is not None:
        for _ in range(turns):
            await asyncio.sleep(0)
        work.cancel()
    try:
        return await asyncio.wait_for(work, 60)
    finally:
        assert max(backend.rooms, default=0) < config.real.server.count, "the next may need them"


def check_journal(path: Path, config: RealConfig, steps: int) -> None:
    """The journal replays, and no rollout is trained twice."""
    header = JournalReader(path).header
    limits = Limits(**header["limits"])
    scheduler = load(header["scheduler"], limits, header["options"])
    assert replay(JournalReader(path).entries(), scheduler, limits) > 0
    trained: Counter[int] = Counter()
    batch: tuple[int, ...] = ()
    done = 0
    for entry in JournalReader(path).entries():
        if isinstance(entry.event, TrainStepFinished):
            trained.update(batch)
            done += 1
        for command in entry.commands:
            if isinstance(command, StartTrainStep):
                batch = command.rollout_ids
    assert done == steps
    assert set(trained.values()) == {1}
    assert sum(trained.values()) == steps * config.train_batch_rollouts
    recorder = read_run(path)
    assert accounts(recorder).total_gpu_ns > 0
    settled = recorder.trajectories["rollout_id"]
    assert sorted(settled) == list(range(len(settled)))  # every started rollout is counted once


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda x: "-".join(map(str, x.values())))
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    servers=st.integers(1, 3),
    joining=st.integers(0, 2),
    troubles=st.builds(
        Troubles,
        reward_fails=st.sampled_from([0.0, 0.05]),
        rollout_fails=st.sampled_from([0.0, 0.01]),
        server_dies=st.sampled_from([0.0, 0.004]),
        trainer_dies=st.sampled_from([0.0, 0.2]),
        trainer_start_dies=st.sampled_from([0.0, 0.2]),
        save_fails=st.sampled_from([0.0, 0.2]),
        no_room=st.sampled_from([0.0, 0.5]),
    ),
)
def test_whatever_goes_wrong_every_rollout_is_counted_once(
    scheduler: dict[str, Any],
    seed: int,
    servers: int,
    joining: int,
    troubles: Troubles,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    config = config_of(scheduler, steps=5, servers=servers, every=1, joining=joining)
    backend = MadeUpBackend(RunFolder(folder), seed, troubles)
    assert to_the_end(config, folder, backend).steps == 5
    check_journal(folder / "journal.jsonl.gz", config, 5)
    assert sorted(backend.trained) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda x: "-".join(map(str, x.values())))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    kills=st.lists(st.integers(20, 800), min_size=1, max_size=4),
    every=st.integers(1, 3),
    joining=st.integers(0, 2),
)
def test_a_killed_run_goes_on_from_its_checkpoint(
    scheduler: dict[str, Any],
    seed: int,
    kills: list[int],
    every: int,
    joining: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    config = config_of(scheduler, steps=6, servers=2, every=every, joining=joining)
    backend = MadeUpBackend(RunFolder(folder), seed, Troubles(server_dies=0.002))
    for turns in kills:
        resume = Checkpoints(folder / "checkpoints", keep=1).newest() is not None
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(_go(config, folder, backend, resume, turns))
    assert to_the_end(config, folder, backend).steps == 6
    check_journal(folder / "journal.jsonl.gz", config, 6)


@pytest.mark.parametrize("scheduler", SCHEDULERS[:3], ids=lambda x: "-".join(map(str, x.values())))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6), turns=st.integers(150, 500), kills=st.integers(1, 3))
def test_a_run_falls_back_over_damaged_checkpoints(
    scheduler: dict[str, Any],
    seed: int,
    turns: int,
    kills: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Also where it had been resumed from the newer one before, and had tidied its store then."""
    folder = tmp_path_factory.mktemp("run")
    config = config_of(scheduler, steps=6, servers=2, every=1)
    backend = MadeUpBackend(RunFolder(folder), seed, Troubles(server_dies=0.002))
    checkpoints = Checkpoints(folder / "checkpoints", keep=config.real.keep_checkpoints)
    for _ in range(kills):
        resume = checkpoints.newest() is not None
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(_go(config, folder, backend, resume, turns))
        kept = checkpoints.all()
        if len(kept) > 1:
            with contextlib.suppress(asyncio.CancelledError):
                asyncio.run(_go(config, folder, backend, True, 40))
            newest = checkpoints.newest()
            assert newest is not None
            (newest.trainer / "version.json").write_text("1000")
    assert to_the_end(config, folder, backend).steps == 6
    check_journal(folder / "journal.jsonl.gz", config, 6)


@pytest.mark.parametrize("seed", range(5))
def test_servers_that_had_joined_are_no_obstacle_to_resuming(seed: int, tmp_path: Path) -> None:
    """When the first one's loss is told, the scheduler takes the others to be there still."""
    config = config_of({"class": "in_flight"}, steps=1000, servers=1, every=1, joining=2)
    backend = MadeUpBackend(RunFolder(tmp_path), seed, Troubles())
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)

    async def until_all_are_there() -> int:
        work = asyncio.ensure_future(_go(config, tmp_path, backend, False, None))
        while 2 not in backend.restarted:
            await asyncio.sleep(0)
        before = newest = checkpoints.newest()
        while newest is None or newest == before:
            await asyncio.sleep(0)
            newest = checkpoints.newest()
        work.cancel()
        await asyncio.wait({work})
        return newest.version

    steps = asyncio.run(until_all_are_there()) + 2
    config = config_of({"class": "in_flight"}, steps=steps, servers=1, every=1, joining=2)
    assert asyncio.run(_go(config, tmp_path, backend, True, None)).steps == steps
    check_journal(tmp_path / "journal.jsonl.gz", config, steps)


def test_a_run_that_ended_before_its_first_event_can_be_resumed(tmp_path: Path) -> None:
    """The trainer has made its checkpoint, and the servers are still starting."""
    config = config_of({"class": "areal"}, steps=2, servers=1, every=1)

    class Slow(MadeUpBackend):
        async def start_server(self, server_id: int) -> MadeUpServer:
            await asyncio.Event().wait()
            raise AssertionError

    async def until_saved() -> None:
        slow = Slow(RunFolder(tmp_path), 0, Troubles())
        work = asyncio.ensure_future(_go(config, tmp_path, slow, False, None))
        while Checkpoints(tmp_path / "checkpoints", keep=1).newest() is None:
            await asyncio.sleep(0.01)
        work.cancel()
        await asyncio.wait({work})

    asyncio.run(until_saved())
    backend = MadeUpBackend(RunFolder(tmp_path), 0, Troubles())
    assert asyncio.run(_go(config, tmp_path, backend, True, None)).steps == 2
    check_journal(tmp_path / "journal.jsonl.gz", config, 2)
