from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import phase_setups, phase_times
from benchmarks.measured import DataError, Row, read_rows
from tests.benchmarks.made_up import real_data, write


def run(**changes: object) -> dict[str, object]:
    """A small made-up run under the name of one that can be set up."""
    row: dict[str, object] = {
        "case_id": "rlinf_verl_R1D1.5B_8H100",
        "hardware": "H100",
        "n_gpus_total": 8,
        "n_train_gpus": "",
        "n_rollout_gpus": "",
        "model": "DeepSeek-R1-Distill-Qwen-1.5B",
        "max_resp": 4_096,
        "prompts_per_step": "",
        "n_per_prompt": 4,
        "seqs_per_step": 64,
        "minibatch_prompts": "",
        "tp_rollout": 2,
        "resp_mean": 1_000,
        "gen_s": 20,
        "old_logprob_s": 1,
        "update_actor_s": "",
        "step_s": 30,
    }
    return row | changes


def rows_of(tmp_path: Path, *rows: dict[str, object]) -> list[Row]:
    write(tmp_path / phase_times.CASES, rows)
    return read_rows(tmp_path / phase_times.CASES, ("case_id",))


def test_a_configuration_has_what_the_row_says(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, run())
    with phase_setups.model_files() as folder:
        config = phase_setups.config_of(row, folder, steps=2, length_scale=0.5)
    assert config.cluster.gpus == 8
    assert config.cluster.colocated
    assert config.sim.server.tensor_parallel == 2
    assert config.workload.prompts_per_step == 16
    assert config.workload.group_size == 4
    assert config.workload.max_response_tokens == 4_096
    assert config.workload.length_scale == 0.5
    assert config.workload.steps == 2


def test_minibatches_and_the_split_come_from_the_row(tmp_path: Path) -> None:
    (row,) = rows_of(
        tmp_path,
        run(
            case_id="verl_fa_7B_async_32",
            model="Qwen2.5-Math-7B",
            n_gpus_total=16,
            n_rollout_gpus=4,
            prompts_per_step=64,
            minibatch_prompts=8,
            tp_rollout="",
        ),
    )
    with phase_setups.model_files() as folder:
        config = phase_setups.config_of(row, folder, steps=2, length_scale=0.1)
    assert config.generation_gpus == 4
    assert config.sim.trainer.minibatches == 8
    assert config.sim.server.tensor_parallel == 1
    assert not config.sim.trainer.recompute_proximal


def test_the_length_scale_gives_the_mean_of_the_row(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, run())
    with phase_setups.model_files() as folder:
        scale = phase_setups.scale_for_mean(row, folder)
        found = phase_setups._mean_tokens(row, folder, scale)
    assert found == pytest.approx(1_000, rel=0.01)


def test_a_mean_above_the_limit_is_an_error(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, run(resp_mean=4_096))
    with phase_setups.model_files() as folder, pytest.raises(DataError, match="the mean 4096"):
        phase_setups.scale_for_mean(row, folder)


def test_a_model_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / phase_times.CASES, [run(model="Other-1B")])
    with pytest.raises(DataError, match=r":2: column 'model': 'Other-1B': not known here"):
        phase_times.compare(tmp_path)


def test_phases_add_up_to_the_step(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, run())
    with phase_setups.model_files() as folder:
        config = phase_setups.config_of(row, folder, steps=2, length_scale=0.1)
        times = phase_times.times_of(config)
    assert times.generation_s is not None
    assert times.proximal_s is not None
    parts = times.generation_s + times.proximal_s + times.update_s
    assert 0 < parts < times.step_s
    assert min(times.generation_s, times.proximal_s, times.update_s) > 0


def test_what_a_row_has_is_compared_and_no_more(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, run())
    times = phase_times.Times(27.0, 18.0, 2.0, 5.0)
    found = phase_times.cases_of(row, times)
    assert [(case.quantity, case.error) for case in found] == [
        ("generation (s)", pytest.approx(-0.1)),
        ("log-probabilities (s)", pytest.approx(1.0)),
        ("step (s)", pytest.approx(-0.1)),
    ]
    assert not any(case.fitted for case in found)


def test_the_wait_of_an_asynchronous_trainer_is_not_generation(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, run(case_id="verl_fa_7B_async_32"))
    found = phase_times.cases_of(row, phase_times.Times(27.0, None, None, 5.0))
    assert [case.quantity for case in found] == ["step (s)"]


def test_what_is_fitted_is_marked(tmp_path: Path) -> None:
    rows = rows_of(
        tmp_path,
        run(case_id=phase_setups.SCALE_FITTED_ON),
        run(case_id="areal_T1_1.5B_syncareal"),
        run(case_id="areal_T1_14B_syncareal"),
    )
    times = phase_times.Times(27.0, 18.0, 2.0, 5.0)
    marks = [[case.fitted for case in phase_times.cases_of(row, times)] for row in rows]
    assert marks == [[False, True, False], [True] * 3, [True] * 3]


def test_the_scale_is_found() -> None:
    assert phase_times.fit_scale(lambda scale: 100 * scale, 30.0) == pytest.approx(0.3, rel=0.01)
    with pytest.raises(DataError, match=r"gives 1e\+06 s"):
        phase_times.fit_scale(lambda scale: 100 * scale, 1e6)


def test_rows_that_cannot_be_set_up_have_their_reason(tmp_path: Path) -> None:
    write(
        tmp_path / phase_times.CASES,
        [
            run(),
            run(case_id="nemo_DeepSeek-V3_on-policy_256"),
            run(case_id="new"),
            run(case_id="verl_fa_7B_sync_128"),
        ],
    )
    report = phase_times.compare(tmp_path)
    assert {case.name for case in report.cases} == {"rlinf_verl_R1D1.5B_8H100"}
    assert report.left_out == [
        ("nemo_DeepSeek-V3_on-policy_256", "a mixture of experts: not modelled"),
        ("new", "not known here"),
        ("verl_fa_7B_sync_128", "its lengths come from verl_fa_7B_sync_32, not in the file"),
    ]


def test_no_case_is_both_set_up_and_left_out() -> None:
    groups = [phase_setups.ASSUMED, phase_setups.PAPER_CONFIGS, phase_setups.REASONS]
    names = [name for group in groups for name in group]
    assert len(names) == len(set(names))


def test_every_real_row_is_set_up_or_has_a_reason() -> None:
    data = real_data(phase_times.CASES)
    names = {row.text("case_id") for row in read_rows(data / phase_times.CASES, ("case_id",))}
    known = {*phase_setups.ASSUMED, *phase_setups.PAPER_CONFIGS, *phase_setups.REASONS}
    assert names == known


@pytest.mark.slow
def test_a_real_run(tmp_path: Path) -> None:
    """One of them; `python -m benchmarks.phase_times` takes a minute for all."""
    name = "nemo05_Llama3.1-8B_on-policy_16"
    header, *rows = (real_data(phase_times.CASES) / phase_times.CASES).read_text().splitlines()
    (row,) = (row for row in rows if row.startswith(f"{name},"))
    file = tmp_path / phase_times.CASES
    file.parent.mkdir()
    file.write_text(f"{header}\n{row}\n")
    found = {case.quantity: case for case in phase_times.compare(tmp_path).cases}
    assert {case.name for case in found.values()} == {name}
    assert abs(found["step (s)"].error) < 0.2
