"""What a run tells of each step: one line of ``metrics.jsonl``, and the same for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from areal_real.learner import StepDone
from areal_real.rows import read_rows, write_rows
from areal_sched.measurements import EngineSteps, Measurement, ServerSpan
from areal_sched.staleness import lag

NS_PER_S = 1e9

SERVER_IDLE = ("idle", "paused", "down")
TRAINER_IDLE = ("idle", "down")


@dataclass(slots=True)
class IdleMeter:
    """Idle shares of generation and training over the spans that ended since the last look."""

    _server: list[int] = field(default_factory=lambda: [0, 0])
    _trainer: list[int] = field(default_factory=lambda: [0, 0])
    generated_tokens: int = 0

    def take(self, span: Measurement) -> None:
        """Count a span."""
        if isinstance(span, EngineSteps):
            return
        length_ns = span.end_ns - span.start_ns
        if isinstance(span, ServerSpan):
            count, idle = self._server, span.activity in SERVER_IDLE
            self.generated_tokens += span.generated_tokens
        else:
            count, idle = self._trainer, span.activity in TRAINER_IDLE
        count[0] += length_ns * idle
        count[1] += length_ns

    def read(self) -> dict[str, float]:
        """The shares, and begin anew."""
        shares = {
            "idle_share/generation": self._server[0] / max(self._server[1], 1),
            "idle_share/training": self._trainer[0] / max(self._trainer[1], 1),
        }
        self._server, self._trainer = [0, 0], [0, 0]
        return shares


class StepMetrics:
    """Makes a step's row.

    Args:
        since_ns: run time at which the first step counts as begun.
    """

    def __init__(self, *, since_ns: int) -> None:
        self.meter = IdleMeter()
        self._since_ns = since_ns

    def row(self, done: StepDone, *, now_ns: int, in_flight: int) -> dict[str, float]:
        """Figures of a step that has just been published.

        Args:
            done: the step.
            now_ns: the run's clock.
            in_flight: rollouts on servers or interrupted.

        Returns:
            ``step``; ``time_s`` since the run began; ``reward`` (mean of the batch); ``lag/mean``
            and ``lag/max`` in versions, and ``lag/reported_mean`` by the versions that servers
            reported with the first tokens; ``response_tokens/mean`` and ``/max``; ``tokens_per_s``
            (generated tokens of trained trajectories per second since the step before);
            ``interruptions`` (mean of the batch); idle shares; and under ``trainer/`` what the
            trainer tells.
        """
        rollouts = done.rollouts
        lags = [
            lag(consuming_version=done.version - 1, first_version=x.first_version) for x in rollouts
        ]
        tokens = [x.generated_tokens for x in rollouts]
        seconds = max((now_ns - self._since_ns) / NS_PER_S, 1e-9)
        self._since_ns = now_ns
        return {
            "step": done.version,
            "time_s": now_ns / NS_PER_S,
            "reward": sum(x.reward for x in rollouts) / len(rollouts),
            "lag/mean": sum(lags) / len(lags),
            "lag/max": max(lags),
            "lag/reported_mean": done.version - 1 - sum(done.first_versions) / len(rollouts),
            "response_tokens/mean": sum(tokens) / len(tokens),
            "response_tokens/max": max(tokens),
            "tokens_per_s": sum(tokens) / seconds,
            "step_s": seconds,
            "interruptions": sum(x.interruptions for x in rollouts) / len(rollouts),
            "in_flight": in_flight,
            **self.meter.read(),
            **{f"trainer/{name}": value for name, value in done.stats.items()},
        }


class MetricsLog:
    """``metrics.jsonl`` and ``tensorboard/`` of a run directory.

    Args:
        folder: the run directory.
        upto_step: rows of later steps, left by a run that is resumed, are removed.
    """

    def __init__(self, folder: Path, *, upto_step: int = 0) -> None:
        # Here: it takes half a second to import.
        from tensorboard.summary import Writer

        self._path = folder / "metrics.jsonl"
        kept = [row for row in read_rows(self._path) if row.get("step", 0) <= upto_step]
        write_rows(self._path, kept)
        self._file = self._path.open("a")
        self._board = Writer(str(folder / "tensorboard"))

    def write(self, row: Mapping[str, float]) -> None:
        """Take a step's row."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(name, float(value), int(row["step"]))

    def close(self) -> None:
        """Finish the files."""
        self._file.close()
        self._board.close()
