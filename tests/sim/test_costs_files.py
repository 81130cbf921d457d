import dataclasses
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_sim.costs import (
    CostProvider,
    FittedCosts,
    Roofline,
    ServerCost,
    TableCosts,
    TrainerCost,
)
from areal_sim.costs.protocol import FS_PER_S
from areal_sim.costs.tables import fit_decode, fit_decode_table, nonnegative_least_squares
from areal_sim.hardware import ServerLayout, TrainerLayout, paper_cluster
from areal_sim.models import load_model

coefficients = st.integers(0, 10**13)
servers = st.builds(
    ServerCost,
    decode_base_fs=st.integers(1, 10**13),
    decode_per_rollout_fs=coefficients,
    decode_per_kv_token_fs=st.one_of(st.just(0), coefficients),
    prefill_base_fs=coefficients,
    prefill_per_token_fs=coefficients,
    prefill_per_token_pair_fs=coefficients,
)


def roofline() -> Roofline:
    return Roofline(
        cluster=paper_cluster(16),
        model=load_model("7b"),
        server_layout=ServerLayout(),
        trainer_layout=TrainerLayout(pipeline_parallel=4, data_parallel=8),
    )


# Fitted costs

finite = st.floats(0, 1e300, allow_nan=False)


@given(
    servers,
    st.builds(
        TrainerCost,
        **{
            field.name: finite
            for field in dataclasses.fields(TrainerCost)
            if field.name != "pipeline_stages"
        },
        pipeline_stages=st.integers(1, 64),
    ),
    finite,
    st.one_of(st.none(), finite),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_fitted_costs_survive_the_file_exactly(
    server: ServerCost, trainer: TrainerCost, load_s: float, switch: float | None, source: str
) -> None:
    costs = FittedCosts(
        server_cost=server,
        trainer_cost=trainer,
        publish_s=0.1,
        load_s=load_s,
        to_train_s=switch,
        source=source,
    )
    tomllib.loads(costs.to_toml())
    assert FittedCosts.from_toml(costs.to_toml()) == costs


def test_freezing_a_roofline(tmp_path: Path) -> None:
    provider = roofline()
    frozen = FittedCosts.from_provider(provider, source="roofline, 7b")
    frozen.save(tmp_path / "costs.toml")
    again = FittedCosts.load(tmp_path / "costs.toml")
    assert isinstance(again, CostProvider)
    assert again.server() == provider.server()
    assert again.trainer() == provider.trainer()
    assert again.weight_publish_s() == provider.weight_publish_s()
    assert again.weight_load_s() == provider.weight_load_s()
    assert again.switch_s("train") == provider.switch_s("train")
    assert again.source == "roofline, 7b"


def test_a_file_without_switch_times_says_so_when_asked() -> None:
    frozen = FittedCosts.from_provider(roofline(), source="run-17")
    separated = dataclasses.replace(frozen, to_generate_s=None, to_train_s=None)
    assert "[switch]" not in separated.to_toml()
    with pytest.raises(ValueError, match=r"switch\.to_train_s: missing from .*run-17"):
        separated.switch_s("train")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format =", "fmt =", r"costs\.toml: format = None: expected 'areal-sim-costs/1'"),
        ("costs/1", "costs/2", r"costs\.toml:1:1: format = 'areal-sim-costs/2': expected"),
        ("decode_base_fs = ", "decode_base = ", r"costs\.toml:5:1: server\.decode_base: unknown"),
        ("decode_base_fs = ", "decode_base_fs = -", r"decode_base_fs = -\d+: expected an integer"),
        ("prefill_base_fs = ", "# ", r"costs\.toml:4:1: missing key server\.prefill_base_fs"),
        ("load_s = ", "load_s = true # ", r"costs\.toml:\d+:1: weights\.load_s = True: expected a"),
        ("load_s = ", "load_s = nan # ", r"load_s = nan: expected a finite number"),
        ("pipeline_stages = 4", "pipeline_stages = 4.0", r"stages = 4\.0: expected an integer"),
        ("[trainer]", "[trainers]", r"trainers: unknown key \(did you mean 'trainer'\?\)"),
        ("[weights]", "[weights", r"costs\.toml: not TOML: .*line 24"),
    ],
)
def test_bad_files_are_located(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = FittedCosts.from_provider(roofline(), source="x").to_toml()
    assert old in text
    path = tmp_path / "costs.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        FittedCosts.load(path)


# Tables


def test_a_fit_recovers_exact_coefficients() -> None:
    cells = [
        (n, n * ctx, 0.002 + 3e-6 * n + 1e-8 * n * ctx)
        for n in (1, 8, 64)
        for ctx in (512, 4096, 16384)
    ]
    fit = fit_decode(cells)
    assert fit.base_s == pytest.approx(0.002)
    assert fit.per_rollout_s == pytest.approx(3e-6)
    assert fit.per_kv_token_s == pytest.approx(1e-8)
    assert fit.largest_relative_error < 1e-9
    assert fit.step_s(8, 4096) == pytest.approx(0.002 + 24e-6 + 4096e-8)


@given(st.integers(0, 2**32))
def test_nonnegative_least_squares_meets_its_optimality_conditions(seed: int) -> None:
    random = np.random.default_rng(seed)
    matrix, target = random.normal(size=(12, 3)), random.normal(size=12)
    solution = nonnegative_least_squares(matrix, target)
    gradient = matrix.T @ (matrix @ solution - target)
    # Karush-Kuhn-Tucker: no descent direction within x >= 0.
    assert (solution >= 0).all()
    assert (gradient >= -1e-9).all()
    assert np.abs(gradient * solution).max() < 1e-9


TABLE = """system,model,tp,batch,ctx,step_ms
h100,7B,1,1,1000,5.01
h100,7B,1,10,1000,5.1
h100,7B,1,10,2000,5.2
h100,7B,1,500,9000,99.0
h100,7B,2,10,2000,3.0
h200,7B,1,10,2000,4.0
"""


def test_a_table_replaces_only_the_decode_coefficients(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    fit = fit_decode_table(path, tensor_parallel=1, max_kv_tokens=100_000, system="h100")
    assert fit.cells == 3  # another tp, another system and a cell that cannot run are left out
    assert fit.base_s == pytest.approx(0.005)
    assert fit.per_kv_token_s == pytest.approx(1e-8)
    rest = roofline()
    costs = TableCosts(fit=fit, rest=rest, step_overhead_s=0.001, rollout_overhead_s=1e-5)
    assert isinstance(costs, CostProvider)
    server = costs.server()
    assert server.decode_base_fs == pytest.approx(0.006 * FS_PER_S)
    assert server.decode_per_rollout_fs == pytest.approx((fit.per_rollout_s + 1e-5) * FS_PER_S)
    assert server.prefill_per_token_fs == rest.server().prefill_per_token_fs
    assert costs.trainer() == rest.trainer()
    assert costs.weight_load_s() == rest.weight_load_s()
    assert costs.weight_publish_s() == rest.weight_publish_s()
    assert costs.switch_s("train") == rest.switch_s("train")
    with pytest.raises(ValueError, match="step_overhead_s = -1: expected"):
        dataclasses.replace(costs, step_overhead_s=-1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch,", "bach,", r"table\.csv:1: missing column 'batch' \(did you mean 'bach'\?\)"),
        ("10,1000,", "10,x,", r"table\.csv:3: column 'ctx': 'x': expected a positive integer"),
        ("10,1000,", "1.5,1000,", r"column 'batch': '1\.5': expected a positive integer"),
        ("5.01", "-5", r"table\.csv:2: column 'step_ms': '-5': expected a positive number"),
        ("5.01", "nan", r"column 'step_ms': 'nan': expected a positive number"),
        ("5.01", "5,01", r"table\.csv:2: 7 fields, the header has 6"),
        ("h100,7B,1,10", "h100,7B,4,10", r"2 rows with tp 1, system 'h100' and at most 100000"),
    ],
)
def test_bad_tables_are_located(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(TABLE.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        fit_decode_table(path, tensor_parallel=1, max_kv_tokens=100_000, system="h100")


def test_a_table_of_two_systems_needs_a_choice(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    with pytest.raises(ValueError, match="column 'system' has h100, h200: choose one of them"):
        fit_decode_table(path, tensor_parallel=1, max_kv_tokens=100_000)
    with pytest.raises(ValueError, match=r"nowhere\.csv: cannot be read"):
        fit_decode_table(tmp_path / "nowhere.csv", tensor_parallel=1, max_kv_tokens=1)
