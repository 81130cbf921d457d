"""A journal as a real run with faults leaves it: every GPU-second of it has one cause, once."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import pytest

from analysis.accounts import accounts
from analysis.compare import compare
from analysis.phases import phases
from analysis.recorder import RunRecorder, read_run
from analysis.summary import summarise
from areal_sched import (
    JournalWriter,
    PromptArrived,
    RewardComputed,
    RolloutFinished,
    RolloutsInterrupted,
    ServerJoined,
    ServerLost,
    ServerSpan,
    StartRollouts,
    StartTrainStep,
    TrainerReady,
    TrainerSpan,
    TrainStepFailed,
    TrainStepFinished,
)
from tests.analysis.made_up_parts import Kept, header_of
from tests.analysis.made_up_run import MadeUpRun

S = 10**9
Any_ = cast("Any", dict)


def joined(server_id: int, version: int = 0) -> ServerJoined:
    return ServerJoined(
        **Any_(
            server_id=server_id,
            max_running_rollouts=8,
            kv_cache_tokens=1000,
            weight_version=version,
        )
    )


def server_span(server_id: int, activity: str, start_s: int, end_s: int) -> ServerSpan:
    return ServerSpan(
        **Any_(
            server_id=server_id,
            activity=activity,
            start_ns=start_s * S,
            end_ns=end_s * S,
            prefill_ns=0,
            recompute_ns=0,
            generated_tokens=10,
            recomputed_tokens=0,
        )
    )


def trainer_span(activity: str, version: int, start_s: int, end_s: int) -> TrainerSpan:
    return TrainerSpan(
        **Any_(
            activity=activity,
            weight_version=version,
            start_ns=start_s * S,
            end_ns=end_s * S,
            waiting_ns=0,
            micro_batches=1,
        )
    )


def faulty() -> bytes:
    """Two servers of 2 GPUs and a trainer of 1; server 1 is lost and comes back as 2, the trainer
    fails in its first step, restarts and makes it again.
    """
    stream = Kept()
    bounds = {"train_batch_rollouts": 2, "group_size": 1, "eta": 4, "max_rollouts_in_flight": 8}
    writer = JournalWriter(
        stream,
        header_of(
            "areal",
            {},
            bounds,
            generation_gpus=4,
            gpus_per_server=2,
            servers=2,
            training_gpus=1,
            colocated=False,
            steps=2,
            seed=1,
        ),
    )

    def say(at_s: int, event: Any, *commands: Any) -> None:
        writer.record(at_s * S, event, commands, None)

    def start(rollout_id: int, server_id: int) -> StartRollouts:
        return StartRollouts(
            **Any_(group_id=rollout_id, rollout_ids=(rollout_id,), server_id=server_id)
        )

    def finished(rollout_id: int, at_s: int, version: int = 0) -> None:
        say(
            at_s,
            RolloutFinished(
                **Any_(
                    rollout_id=rollout_id,
                    weight_version=version,
                    generated_tokens=10,
                    finish_reason="stop",
                )
            ),
        )

    def rewarded(rollout_id: int, at_s: int, *commands: Any) -> None:
        say(at_s, RewardComputed(**Any_(rollout_id=rollout_id, reward=1.0)), *commands)

    def train(version: int, *ids: int) -> StartTrainStep:
        return StartTrainStep(**Any_(weight_version=version, rollout_ids=ids))

    say(0, joined(0))
    say(3, joined(1))
    say(3, TrainerReady(**Any_(weight_version=0)))
    for i in range(5):
        prompt = PromptArrived(**Any_(prompt_id=i, group_id=i, group_size=1, prompt_tokens=5))
        say(4, prompt, start(i, 1 if i in (1, 4) else 0))
    finished(0, 10)
    rewarded(0, 11)
    finished(1, 12)
    rewarded(1, 13, train(1, 0, 1))
    interrupted = RolloutsInterrupted(**Any_(server_id=1, weight_version=0, progress=((4, 3),)))
    say(15, interrupted)
    say(15, ServerLost(**Any_(server_id=1)))
    say(20, TrainStepFailed(**Any_(weight_version=1, reason="killed")))
    say(30, TrainerReady(**Any_(weight_version=0)), train(1, 0, 1))
    say(32, joined(2))
    say(40, TrainStepFinished(**Any_(weight_version=1)))
    say(41, TrainerReady(**Any_(weight_version=1)))
    finished(2, 42)
    finished(3, 43)
    rewarded(2, 44)
    rewarded(3, 44, train(2, 2, 3))
    say(60, TrainStepFinished(**Any_(weight_version=2)))
    spans = [
        server_span(0, "idle", 0, 4),
        server_span(0, "generate", 4, 43),
        server_span(0, "idle", 43, 60),
        server_span(1, "idle", 3, 4),
        server_span(1, "generate", 4, 15),
        server_span(1, "down", 15, 60),  # a lost server goes on saying so
        server_span(2, "idle", 32, 60),
        trainer_span("idle", 0, 0, 13),
        trainer_span("minibatch", 1, 13, 20),
        trainer_span("down", 1, 20, 30),
        trainer_span("minibatch", 1, 30, 40),
        trainer_span("save", 1, 40, 41),
        trainer_span("idle", 1, 41, 44),
        trainer_span("minibatch", 2, 44, 60),
    ]
    for span in sorted(spans, key=lambda span: span.end_ns):
        writer.measure(span.end_ns, span)
    writer.close()
    return stream.kept


@pytest.fixture(scope="module")
def faulty_run(tmp_path_factory: pytest.TempPathFactory) -> RunRecorder:
    path = tmp_path_factory.mktemp("faulty") / "journal.jsonl.gz"
    path.write_bytes(faulty())
    return read_run(path)


def test_servers_down_and_a_trainer_that_restarts(faulty_run: RunRecorder) -> None:
    whole = accounts(faulty_run)
    assert sum(whole.gpu_ns.values()) == 5 * 60 * S
    told = {cause: value // S for cause, value in whole.gpu_ns.items() if value}
    assert told == {
        "decode": 2 * 39 + 2 * 11,
        "idle_generation": 2 * 4 + 2 * 17 + 2 * 1 + 2 * 28,
        "server_down": 2 * 3 + 2 * 17,  # before it joined, and until another took its place
        "minibatch": 7 + 10 + 16,
        "trainer_down": 10,
        "save": 1,
        "idle_training": 13 + 3,
    }


def test_both_sides_of_a_comparison_add_up(
    faulty_run: RunRecorder, areal_run: MadeUpRun, tmp_path: Path
) -> None:
    runs = [faulty_run, read_run(areal_run.write(tmp_path / "j.gz"))]
    summaries = [summarise(x, x.end_ns, 0.0, "") for x in runs]
    comparison = compare(*summaries, *map(phases, runs))
    rows = {row.key: row for row in comparison.rows}
    for kind in ("gpu_time_share.", "gpu_share."):
        causes = [row for key, row in rows.items() if key.startswith(kind)]
        for side in ("a", "b"):
            assert sum(getattr(row, side) for row in causes) == pytest.approx(1.0)
    assert rows["gpu_time_share.trainer_down"].a == pytest.approx(10 / 300)
    assert rows["gpu_time_share.server_down"].a == pytest.approx(40 / 300)
    assert rows["gpu_share.trainer_down"].a == 0.0, "the first step is start-up"
    text = io.StringIO()
    from rich.console import Console

    Console(file=text, width=120).print(comparison.table())
    assert "gpu_time_share.trainer_down" in text.getvalue()
