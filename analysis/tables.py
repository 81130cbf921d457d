"""Tables of a run: one row per trajectory, one row per training step; pandas and Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.accounts import accounts_between
from analysis.recorder import RunRecorder
from analysis.steps import steady_state, steps_of
from areal_sched.records import Phase

if TYPE_CHECKING:
    import pandas as pd

TRAJECTORY_COLUMNS: Mapping[str, str] = {
    "rollout_id": "id, counting from 0 in the order of starting",
    "group_id": "the group: rollouts of one prompt",
    "server_id": "server it last ran on",
    "outcome": "trained, failed, dropped, or live if not settled when the run ended",
    "start_ns": "when it was started, ns since the run began",
    "finish_ns": "when its last token was generated, ns; missing if it never finished",
    "ready_ns": "when its reward was known, ns; missing if it never was",
    "train_ns": "when the training step that took it began, ns; missing if none did",
    "settled_ns": "when it was trained, failed or dropped, ns; missing if live",
    "prompt_tokens": "tokens of its prompt",
    "generated_tokens": "tokens of its answer, as last reported",
    "first_version": "weights that made its first token",
    "last_version": "weights that made its last reported token",
    "consumed_version": "policy that trained on it; missing if none did",
    "lag": "consumed_version - first_version, versions; missing if not trained",
    "interruptions": "how often it was stopped and its KV cache dropped",
    "reward": "its reward, 32 bits; 0 if never known",
}
"""Columns of `trajectory_table`, and their units."""

STEP_COLUMNS: Mapping[str, str] = {
    "weight_version": "version the step made: 1 for the first step",
    "steady": "whether the step counts as steady state",
    "train_ns": "when training on the batch began, ns since the run began",
    "end_ns": "when the step was done, ns",
    "step_time_s": "from the end of the step before to its end, s",
    "train_time_s": "from its begin to its end, s",
    "trajectories": "trajectories trained on",
    "prompt_tokens": "tokens of their prompts",
    "generated_tokens": "tokens of their answers",
    "effective_throughput_tokens_per_s": "generated_tokens / step_time_s",
    "lag_mean": "mean lag of its trajectories, versions",
    "lag_max": "largest lag, versions",
    "interruptions": "interruptions its trajectories had",
    "reward_mean": "mean reward",
    "idle_share_generation": "idle share of GPU time held by generation since the step before",
    "idle_share_training": "idle share of GPU time held by training since the step before",
}
"""Columns of `step_table`, and their units."""

_OUTCOMES = {Phase.TRAINED: "trained", Phase.FAILED: "failed", Phase.DROPPED: "dropped"}


def trajectory_table(recorder: RunRecorder) -> pd.DataFrame:
    """One row per rollout ever settled, in the order of settling, then the live ones.

    Returns:
        Columns as in `TRAJECTORY_COLUMNS`; what is missing is ``<NA>``.
    """
    import pandas as pd

    columns = recorder.trajectories
    shared = {name: recorder.settlement(name) for name in ("settled_ns", "train_ns")}
    consumed = recorder.settlement("consumed_version").astype(np.int32)
    trained_on = consumed >= 0
    names = [_OUTCOMES.get(phase, "live") for phase in Phase]
    kinds = list(dict.fromkeys(names))
    code_of_phase = np.array([kinds.index(name) for name in names], np.int8)
    values: dict[str, Any] = {
        "outcome": pd.Categorical.from_codes(
            code_of_phase[recorder.settlement("phase")], categories=pd.Index(kinds)
        ),
        "consumed_version": _integers(consumed, ~trained_on),
        "lag": _integers(consumed - columns["first_version"], ~trained_on),
    }
    for name in ("finish_ns", "ready_ns"):
        values[name] = _integers(columns[name], columns[name] < 0)
    for name, column in shared.items():
        values[name] = _integers(column, column < 0)
    return pd.DataFrame(
        {name: values[name] if name in values else columns[name] for name in TRAJECTORY_COLUMNS},
        copy=False,
    )


def step_table(recorder: RunRecorder) -> pd.DataFrame:
    """One row per finished training step, in order.

    Returns:
        Columns as in `STEP_COLUMNS`.

    Raises:
        AnalysisError: the spans do not tile the run.
    """
    import pandas as pd

    steps = steps_of(recorder)
    steady = steady_state(steps)
    seconds = steps.step_ns / 1e9
    accounts = accounts_between(recorder, [0, *steps.end_ns.tolist()]) if len(steps) else []
    idle = {
        side: np.array([account.idle_share(side) for account in accounts], np.float64)
        for side in ("generation", "training")
    }
    values: dict[str, Any] = {
        "weight_version": steps.weight_version,
        "steady": np.arange(len(steps)) >= steady.first_step,
        "train_ns": steps.train_ns,
        "end_ns": steps.end_ns,
        "step_time_s": seconds,
        "train_time_s": (steps.end_ns - steps.train_ns) / 1e9,
        "trajectories": steps.trajectories,
        "prompt_tokens": steps.prompt_tokens,
        "generated_tokens": steps.generated_tokens,
        "effective_throughput_tokens_per_s": steps.generated_tokens / seconds,
        "lag_mean": steps.lag_sum / steps.trajectories,
        "lag_max": steps.lag_max,
        "interruptions": steps.interruptions,
        "reward_mean": steps.reward_mean,
        "idle_share_generation": idle["generation"],
        "idle_share_training": idle["training"],
    }
    return pd.DataFrame({name: values[name] for name in STEP_COLUMNS})


def write_tables(recorder: RunRecorder, out_dir: Path | str) -> list[Path]:
    """Write ``trajectories.parquet`` and ``steps.parquet``; each field carries its description.

    Returns:
        The files.

    Raises:
        AnalysisError: the spans do not tile the run.
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    trajectories, steps = folder / "trajectories.parquet", folder / "steps.parquet"
    write_parquet(trajectory_table(recorder), trajectories, TRAJECTORY_COLUMNS)
    write_parquet(step_table(recorder), steps, STEP_COLUMNS)
    return [trajectories, steps]


def write_parquet(table: pd.DataFrame, path: Path, descriptions: Mapping[str, str]) -> None:
    """Write a table as Parquet, with a description of each column in its field's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table, preserve_index=False)
    fields = [
        field.with_metadata({"description": descriptions[field.name]}) for field in arrow.schema
    ]
    schema = pa.schema(fields, metadata=arrow.schema.metadata)
    pq.write_table(arrow.cast(schema), path, compression="zstd")


def _integers(values: Any, missing: Any) -> Any:
    """A pandas column of whole numbers, ``<NA>`` where missing."""
    import pandas as pd

    return pd.arrays.IntegerArray(np.array(values), np.array(missing, np.bool_))
