"""Tables and Parquet files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from analysis.accounts import accounts
from analysis.recorder import RunRecorder
from analysis.steps import steps_of
from analysis.tables import (
    STEP_COLUMNS,
    TRAJECTORY_COLUMNS,
    step_table,
    trajectory_table,
    write_tables,
)
from areal_sched import Phase
from tests.analysis.by_hand import FACTS, recorder, rollout
from tests.analysis.made_up_run import MadeUpRun


def test_trajectories_by_hand() -> None:
    made = RunRecorder(FACTS)
    made.settled(
        [
            rollout(
                3,
                start_ns=1,
                finish_ns=5,
                ready_ns=6,
                train_ns=7,
                settled_ns=9,
                first_version=2,
                last_version=3,
                consumed_version=4,
                generated_tokens=50,
                reward=0.5,
                server_id=1,
            )
        ]
    )
    made.settled([rollout(4, Phase.DROPPED, settled_ns=10, finish_ns=8)])
    made.ended(12, [rollout(6, Phase.READY, ready_ns=11), rollout(5, Phase.RUNNING)])
    table = trajectory_table(made)
    assert list(table.columns) == list(TRAJECTORY_COLUMNS)
    assert table["rollout_id"].tolist() == [3, 4, 5, 6]
    assert table["outcome"].tolist() == ["trained", "dropped", "live", "live"]
    row = table.iloc[0]
    assert (row["lag"], row["consumed_version"], row["train_ns"], row["reward"]) == (2, 4, 7, 0.5)
    assert (row["group_id"], row["prompt_tokens"], row["server_id"]) == (1, 100, 1)
    missing = table.isna()
    assert missing["lag"].tolist() == [False, True, True, True]
    assert missing["finish_ns"].tolist() == [False, False, True, True]
    assert missing["ready_ns"].tolist() == [False, True, True, False]
    assert missing["settled_ns"].tolist() == [False, False, True, True]


def test_steps_of_a_run(areal_run: MadeUpRun) -> None:
    table = step_table(areal_run.recorder)
    assert list(table.columns) == list(STEP_COLUMNS)
    trained = trajectory_table(areal_run.recorder).query("outcome == 'trained'")
    by_step = trained.groupby("consumed_version")
    assert table["generated_tokens"].tolist() == by_step["generated_tokens"].sum().tolist()
    assert table["lag_mean"].tolist() == by_step["lag"].mean().tolist()
    assert table["lag_max"].tolist() == by_step["lag"].max().tolist()
    assert table["interruptions"].tolist() == by_step["interruptions"].sum().tolist()
    assert table["end_ns"].tolist() == by_step["settled_ns"].max().tolist()
    assert (
        table["step_time_s"].tolist()
        == (table["end_ns"].diff().fillna(table["end_ns"]) / 1e9).tolist()
    )
    steady = table["steady"].tolist()
    assert steady == sorted(steady)
    assert not steady[0]
    assert steady[-1]
    ends = steps_of(areal_run.recorder).end_ns.tolist()
    part = accounts(areal_run.recorder, ends[2], ends[3])
    assert table["idle_share_generation"].iloc[3] == part.idle_share("generation")


def test_tables_of_a_run_without_anything() -> None:
    made = recorder({0: [("idle", 5)]}, [("idle", 5)])
    assert len(step_table(made)) == 0
    assert list(trajectory_table(made).columns) == list(TRAJECTORY_COLUMNS)
    assert len(trajectory_table(made)) == 0


def test_parquet_holds_the_tables_and_says_what_they_mean(
    areal_run: MadeUpRun, tmp_path: Path
) -> None:
    files = write_tables(areal_run.recorder, tmp_path / "run")
    assert [file.name for file in files] == ["trajectories.parquet", "steps.parquet"]
    for file, table, columns in (
        (files[0], trajectory_table(areal_run.recorder), TRAJECTORY_COLUMNS),
        (files[1], step_table(areal_run.recorder), STEP_COLUMNS),
    ):
        pd.testing.assert_frame_equal(pd.read_parquet(file), table)
        for field in pq.read_schema(file):
            assert field.metadata[b"description"].decode() == columns[field.name]


def test_the_same_run_gives_the_same_files(areal_run: MadeUpRun, tmp_path: Path) -> None:
    first, second = (write_tables(areal_run.recorder, tmp_path / x) for x in "ab")
    assert [x.read_bytes() for x in first] == [x.read_bytes() for x in second]
