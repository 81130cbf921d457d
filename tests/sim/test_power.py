"""Watts and price from the configuration over the journal's header to the summary."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from analysis.recorder import read_run
from analysis.rundir import JOURNAL, read_summary
from analysis.summary import summarise
from areal_sim.build import header_of
from areal_sim.commands.show import summary_rows
from areal_sim.config import load_config, parse_config
from areal_sim.costs import FittedCosts, Roofline
from areal_sim.hardware import GPUS
from areal_sim.power import GPU_POWER, POWER_USAGE_EFFECTIVENESS
from areal_sim.rundir import simulate
from tests.sim.cli_cases import config
from tests.sim.config_cases import SMALL, refused, small

OWN = {
    "busy_watts": 500.0,
    "idle_watts": 0.0,
    "host_watts_per_gpu": 20.0,
    "power_usage_effectiveness": 1.5,
    "usd_per_gpu_hour": 2.0,
}
KEYS = ("cost_usd", "usd_per_million_trained_tokens", "energy_kwh", "energy_j_per_trained_token")


def overrides(values: dict[str, float]) -> list[str]:
    return [f"cluster.{key}={value!r}" for key, value in values.items()]


@pytest.mark.parametrize("name", GPUS)
def test_what_is_not_set_is_the_gpus(name: str) -> None:
    power = GPU_POWER[name]
    assert small(f"cluster.gpu={name}").power == {
        "busy_watts": power.busy_watts.value,
        "idle_watts": power.idle_watts.value,
        "host_watts_per_gpu": power.host_watts.value,
        "power_usage_effectiveness": POWER_USAGE_EFFECTIVENESS,
        "usd_per_gpu_hour": power.usd_per_hour.value,
    }


def test_what_is_set_counts_and_is_in_the_header() -> None:
    run = small(*overrides(OWN))
    assert run.power == OWN
    assert json.loads(json.dumps(header_of(run, "x")))["run"]["power"] == OWN


def test_an_idle_gpu_draws_no_more_than_a_busy_one() -> None:
    message = "cluster.idle_watts = 800.0: must be at most the busy_watts of 700.0"
    assert message in refused(SMALL, "cluster.idle_watts=800")
    message = "cluster.idle_watts = 121.7 (that of H800): must be at most the busy_watts of 75.0"
    assert message in refused(SMALL, "cluster.busy_watts=75")
    assert small("cluster.busy_watts=75", "cluster.idle_watts=75").power["idle_watts"] == 75


def test_a_measured_run_does_not_take_a_default_gpu_for_the_real_one(tmp_path: Path) -> None:
    run = small()
    roofline = Roofline(
        cluster=run.hardware(),
        model=run.model_shape(),
        server_layout=run.server_layout(),
        trainer_layout=run.trainer_layout(),
    )
    FittedCosts.from_provider(roofline, source="a test").save(tmp_path / "costs.toml")
    measured = [
        "sim.cost.provider=fitted",
        f"sim.cost.file={tmp_path / 'costs.toml'}",
        "sim.server.kv_cache_tokens=100000",
        "sim.server.max_running_rollouts=8",
    ]
    unknown = parse_config(SMALL, measured).power
    assert {key for key, value in unknown.items() if value is None} == {
        *("busy_watts", "idle_watts", "host_watts_per_gpu", "usd_per_gpu_hour")
    }
    assert parse_config(SMALL, [*measured, *overrides(OWN)]).power == OWN
    # Below the default GPU's idle power, which does not count here.
    assert parse_config(SMALL, [*measured, "cluster.busy_watts=75"]).power["busy_watts"] == 75


def test_power_changes_nothing_but_the_header(run_dir: Path, tmp_path: Path) -> None:
    run = load_config(config(tmp_path), overrides(OWN))
    other = simulate(run, name="small", out_dir=tmp_path / "run").summary
    plain = read_summary(run_dir)
    journals = [gzip.decompress((x / JOURNAL).read_bytes()) for x in (run_dir, tmp_path / "run")]
    headers, entries = zip(*(journal.split(b"\n", 1) for journal in journals), strict=True)
    assert entries[0] == entries[1]
    assert json.loads(headers[1])["run"]["power"] == OWN
    assert other["cost_usd"] == pytest.approx(other["gpu_hours"] * 2.0)
    share = other["gpu_time_share"]
    idle = {"paused", "idle_generation", "server_down", "waiting", "idle_training", "trainer_down"}
    busy = sum(value for key, value in share.items() if key not in idle | {"unused"})
    expected_wh = 1.5 * other["gpu_hours"] * (500 * busy + 20)
    assert other["energy_kwh"] == pytest.approx(expected_wh / 1000)
    changed = {key for key in plain if plain[key] != other[key]}
    assert changed - {"wall_s", "trajectories_per_wall_s", "realtime_factor"} == {
        *KEYS,
        *("config_sha256", "journal_sha256"),
    }


def test_an_old_journal_is_read_and_its_cost_is_not_known(run_dir: Path, tmp_path: Path) -> None:
    lines = gzip.decompress((run_dir / JOURNAL).read_bytes()).split(b"\n", 1)
    header = json.loads(lines[0])
    del header["run"]["power"]
    old = tmp_path / JOURNAL
    old.write_bytes(gzip.compress(json.dumps(header).encode() + b"\n" + lines[1]))
    recorder = read_run(old)
    summary = summarise(recorder, recorder.end_ns, 1.0, "")
    assert [summary[key] for key in KEYS] == [None] * 4
    plain = read_summary(run_dir)
    assert summary["gpu_time_share"] == plain["gpu_time_share"]
    rows = dict(summary_rows(summary))
    assert rows["cost, and by trained tokens"] == rows["energy, and by trained tokens"] == "-, -"
    shown: dict[str, Any] = dict(summary_rows(plain))
    assert "USD/million" in shown["cost, and by trained tokens"]
    assert "J/token" in shown["energy, and by trained tokens"]
