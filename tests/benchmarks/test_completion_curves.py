from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from areal_sim.costs import ServerCost
from areal_sim.costs.protocol import FS_PER_S
from benchmarks import completion_curves as curves
from benchmarks.measured import DataError
from tests.benchmarks.made_up import real_data, write

OVERHEAD_S, ROLLOUT_OVERHEAD_S = 4e-3, 90e-6


def runs(count: int, requests: int = 12) -> list[curves.Run]:
    """Runs whose finish times are the engine's own, with known overheads."""
    cost, capacity = curves.cost_of(OVERHEAD_S, ROLLOUT_OVERHEAD_S), curves.kv_capacity()
    made = []
    for number in range(count):
        tokens = np.random.default_rng(number).integers(200, 9_000, size=requests)
        made.append(curves.Run(f"r{number}", tokens, curves.finish_times_s(cost, tokens, capacity)))
    return made


def write_runs(data: Path, made: list[curves.Run]) -> None:
    write(
        data / curves.RUNS,
        [
            {"dataset": "openrs_eval_X", "run": n, "n": len(run.tokens), "T": run.finish_s.max()}
            for n, run in enumerate(made)
        ],
    )
    write(
        data / curves.REQUESTS,
        [
            {"dataset": "openrs_eval_X", "run": n, "tokens_est": t, "finish_time_s": f}
            for n, run in enumerate(made)
            for t, f in zip(np.sort(run.tokens).tolist(), run.finish_s.tolist(), strict=True)
        ],
    )


def test_finish_times_by_hand() -> None:
    """Two requests of 3 and 5 tokens, 1 s a step and 1 s for the prefill, no other cost."""
    second = FS_PER_S
    cost = ServerCost(
        decode_base_fs=second,
        decode_per_rollout_fs=0,
        decode_per_kv_token_fs=0,
        prefill_base_fs=second,
        prefill_per_token_fs=0,
        prefill_per_token_pair_fs=0,
    )
    found = curves.finish_times_s(cost, np.array([5, 3]), 10_000)
    # The prefill yields each one's first token.
    assert found.tolist() == [3.0, 5.0]


def test_points_of_a_curve() -> None:
    assert curves.points_s(np.arange(1.0, 11.0)).tolist() == [5.0, 9.0, 10.0]
    assert curves.points_s(np.array([1.0, 2.0, 3.0])).tolist() == [2.0, 3.0, 3.0]


def test_the_order_of_submission() -> None:
    tokens = np.arange(1, 2_001)
    for exponent in (0.0, 0.5, 1.0):
        order = curves.submitted(tokens, exponent)
        assert sorted(order.tolist()) == list(range(2_000))
    lead = [
        tokens[curves.submitted(tokens, exponent)[:1_000]].mean() for exponent in (0.0, 0.5, 1.0)
    ]
    assert lead[0] == pytest.approx(tokens.mean(), rel=0.05)
    assert lead[0] < lead[1] < lead[2]
    assert curves.submitted(tokens, 1e9).tolist() == list(range(1_999, -1, -1))


def test_the_fit_recovers_what_made_the_data(tmp_path: Path) -> None:
    write_runs(tmp_path, runs(11))
    report = curves.compare(tmp_path)
    values = {fit.parameter: fit.value for fit in report.fits}
    assert values["server_step_overhead_s"] == "4.00 ms"
    assert values["server_rollout_overhead_s"] == "90 us"
    assert max(abs(case.error) for case in report.cases) < 1e-3
    assert len(report.cases) == 11 * len(curves.POINTS)


def test_every_fifth_run_is_fitted_and_no_other(tmp_path: Path) -> None:
    made = runs(11)
    write_runs(tmp_path, made)
    report = curves.compare(tmp_path)
    assert {case.name for case in report.cases if case.fitted} == {"X 0", "X 5", "X 10"}
    # A held-out run that took twice as long changes its own error, not the fit.
    made[3] = curves.Run("r3", made[3].tokens, made[3].finish_s * 2)
    write_runs(tmp_path, made)
    changed = curves.compare(tmp_path)
    assert changed.fits == report.fits
    assert [c.error for c in changed.cases if c.name == "X 3"] == pytest.approx(
        [-0.5] * 3, abs=1e-3
    )


def test_the_two_files_must_agree(tmp_path: Path) -> None:
    made = runs(2)
    write_runs(tmp_path, made)
    path = tmp_path / curves.RUNS
    text = path.read_text()
    path.write_text(text.replace(",12,", ",13,", 1))
    with pytest.raises(DataError, match=r":2: run X 0 has 13 requests, .* has 12"):
        curves.read_runs(tmp_path)
    path.write_text(text.replace(str(made[1].finish_s.max()), "1.0"))
    with pytest.raises(DataError, match=r":3: run X 1 ends at 1.0 s, in .* at "):
        curves.read_runs(tmp_path)


def test_a_request_needs_tokens(tmp_path: Path) -> None:
    write_runs(tmp_path, runs(1))
    path = tmp_path / curves.REQUESTS
    head, first, *rest = path.read_text().splitlines()
    dataset, run, _, finish = first.split(",")
    path.write_text("\n".join([head, f"{dataset},{run},none,{finish}", *rest]))
    with pytest.raises(DataError, match=r":2: column 'tokens_est': 'none': expected a number"):
        curves.read_runs(tmp_path)


def test_the_real_runs_finish_within_ten_percent_at_the_median() -> None:
    data = real_data(curves.RUNS)
    report = curves.compare(data)
    ends = [case for case in report.cases if case.quantity == "time to finish (s)"]
    assert len(ends) == 49
    assert len(report.fits) <= 3
    assert sum(case.fitted for case in ends) == 10
    errors = [abs(case.error) for case in ends if not case.fitted]
    assert statistics.median(errors) < 0.05
    assert max(errors) < 0.10
