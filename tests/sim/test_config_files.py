"""Configuration: writing, the ready files, the reference page."""

from __future__ import annotations

import csv
import hashlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_sched.config.options import Option, options_of, toml_value
from areal_sim import memory
from areal_sim.config import (
    config_sha256,
    load_config,
    parse_config,
    reference_page,
    resolved_toml,
)
from areal_sim.costs import FittedCosts, Roofline
from tests.sim.config_cases import (
    LOGNORMAL,
    ROOT,
    SMALL,
    all_tables,
    small,
)
from traces.data import sample_path

NOT_OURS = ("real", "sweeps")
CONFIGS = sorted(
    path for path in (ROOT / "configs").rglob("*.toml") if path.parent.name not in NOT_OURS
)
TABLE_1 = ROOT / ".." / "shared" / "published" / "areal_table1.csv"


# ---- writing ------------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def values_of(option: Option) -> st.SearchStrategy[object]:
    """Any value the option takes, as written in a file."""
    if option.kind == "flag":
        return st.booleans()
    if option.kind == "choice":
        return st.sampled_from(option.choices)
    if option.kind == "number":
        least = option.above if option.least is None else option.least
        most = option.below if option.most is None else option.most
        values: st.SearchStrategy[object] = st.floats(
            least, most, exclude_min=option.least is None and least is not None,
            exclude_max=option.most is None and most is not None,
            allow_nan=False, allow_infinity=False,
        )  # fmt: skip
    else:
        values = st.integers(int(option.least or 0), int(option.most or 2**40))
    return st.one_of(values, st.just(float("inf"))) if option.infinite else values


FREE_TABLES = ("sim.rewards", "sim.evaluation", "sim.weights", "sim.faults", "workload.length")
FREE_KEYS = {
    f"{cls.TABLE}.{key}": values_of(option)
    for cls in all_tables()
    for key, _, option in options_of(cls)
    if (cls.TABLE in FREE_TABLES and key != "constant")
    or f"{cls.TABLE}.{key}"
    in (
        *("workload.length_scale", "workload.prompts_per_step", "workload.steps", "sim.seed"),
        *("sim.trainer.minibatches", "sim.trainer.packing", "sim.trainer.balance"),
        *("sim.trainer.recompute_proximal", "sim.trainer.recompute_activations"),
        *("sim.server.static_memory_fraction", "sim.server.max_running_rollouts"),
        *("limits.eta", "limits.max_lag", "limits.max_failures_per_group"),
        *("cluster.network_bytes_per_s_per_node", "cluster.host_watts_per_gpu"),
        *("cluster.power_usage_effectiveness", "cluster.usd_per_gpu_hour"),
    )
}
FREE_KEYS |= {
    "published.label": WORDS,
    "published.hours": st.floats(0.1, 1e300),
    "sim.cost.server_step_overhead_s": st.floats(0, 1),
    "sim.cost.training_efficiency": st.floats(0.01, 1),
    "scheduler.routing": st.sampled_from(["least_kv", "round_robin"]),
    "scheduler.barrier": st.booleans(),
    "cluster.colocated": st.booleans(),
    "cluster.nodes": st.integers(2, 10**6),
}
NEEDED = {"published.label", "published.hours"} | {
    f"workload.length.{key}" for key in ("mu", "sigma_between", "sigma_within")
}
RUNS = st.fixed_dictionaries(
    {key: value for key, value in FREE_KEYS.items() if key in NEEDED},
    optional={key: value for key, value in FREE_KEYS.items() if key not in NEEDED},
)


@given(RUNS)
def test_a_resolved_configuration_reads_back_as_itself(changes: dict[str, object]) -> None:
    config = small(*(f"{key}={toml_value(value)}" for key, value in changes.items()))
    text = resolved_toml(config)
    again = parse_config(text)
    assert again == config
    assert hash(again) == hash(config)
    assert resolved_toml(again) == text
    assert config_sha256(again) == config_sha256(config)
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_ready_configuration_reads_back_as_itself(path: Path) -> None:
    config = load_config(path)
    text = resolved_toml(config)
    assert parse_config(text) == config
    assert config_sha256(config) == hashlib.sha256(text.encode()).hexdigest()


def test_every_key_is_in_the_resolved_configuration() -> None:
    text = resolved_toml(small(*LOGNORMAL, "workload.prompt_length.constant=9"))
    tables = re.split(r"^\[(.*)\]$", text, flags=re.MULTILINE)[1:]
    lines = dict(zip(tables[::2], tables[1::2], strict=True))
    for cls in all_tables():
        if cls.TABLE != "published":
            for key, _, _ in options_of(cls):
                assert re.search(rf"^(# )?{key} (= |is not set)", lines[cls.TABLE], re.MULTILINE)


def test_the_hash_goes_by_the_content_of_files_and_not_by_their_folder(tmp_path: Path) -> None:
    data = sample_path("azure.csv").read_bytes()
    hashes = []
    for folder, content in (("a", data), ("b", data), ("c", data + b"\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.csv").write_bytes(content)
        hashes.append(config_sha256(small(f"workload.trace={tmp_path / folder / 't.csv'}")))
    assert hashes[0] == hashes[1]
    assert len({*hashes, config_sha256(small()), config_sha256(small("sim.seed=2"))}) == 4


def test_a_costs_file_travels_with_the_resolved_configuration(tmp_path: Path) -> None:
    config = small()
    provider = Roofline(
        cluster=config.hardware(),
        model=config.model_shape(),
        server_layout=config.server_layout(),
        trainer_layout=config.trainer_layout(),
    )
    FittedCosts.from_provider(provider, source="a test").save(tmp_path / "costs.toml")
    text = SMALL + '\n[sim.cost]\nprovider = "fitted"\nfile = "costs.toml"\n'
    fitted = parse_config(text, folder=tmp_path)
    again = parse_config(resolved_toml(fitted), folder="elsewhere")
    assert again == fitted
    assert again.sim.cost.file is not None
    assert FittedCosts.load(again.sim.cost.file).server() == provider.server()


# ---- the ready files and the page ---------------------------------------------------------------


def test_there_are_the_ready_configurations() -> None:
    names = {path.relative_to(ROOT / "configs").as_posix() for path in CONFIGS}
    paper = {f"paper/{m}-{k}.toml" for m in ("1.5b", "7b", "14b", "32b") for k in ("sync", "areal")}
    assert names >= {*paper, "home-8gpu.toml", "scale-512.toml"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_ready_configuration_says_how_to_run_it_wastes_no_gpu_and_fits(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(rf"# .+: areal-sim run {path.relative_to(ROOT).as_posix()}", first)
    config = load_config(path)
    assert config.unused_gpus == 0
    gpu, model = config.hardware().gpu, config.model_shape()
    server, trainer = config.server_layout(), config.trainer_layout()
    context = config.workload.max_context_tokens
    if config.cluster.colocated:
        memory.colocated_memory(gpu, model, server, trainer, context_tokens=context)
    else:
        memory.server_memory(gpu, model, server, context_tokens=context)
        memory.trainer_memory(gpu, model, trainer)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs/paper").glob("*.toml")), ids=lambda p: p.stem
)
def test_a_paper_configuration_agrees_with_the_published_table(path: Path) -> None:
    if not TABLE_1.exists():
        pytest.skip("the published tables are not here")
    model, kind = path.stem.split("-")
    with TABLE_1.open(newline="", encoding="utf-8") as file:
        row = next(
            row
            for row in csv.DictReader(file)
            if row["model"] == f"R1-Distill-Qwen-{model.upper()}"
            and row["system"] == {"verl": "verl", "sync": "sync.AReaL", "areal": "AReaL"}[kind]
        )
    config = load_config(path)
    assert config.model.name == f"r1-distill-qwen-{model}"
    assert (config.cluster.nodes, config.gpus) == (int(row["nodes"]), int(row["gpus"]))
    assert config.workload.steps == int(row["ppo_steps"])
    assert config.published_hours == float(row["hours"])
    assert config.train_batch_rollouts == config.bounds.max_rollouts_in_flight == 8192
    assert config.cluster.colocated == (kind != "areal")
    expected_eta = 0 if kind != "areal" else {"math": 8, "code": 4}[row["task"]]
    assert config.bounds.eta == expected_eta
    assert str(config.workload.preset).startswith(row["task"])


def test_the_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    made_with = "(python -m areal_sim.config; python -m areal_real.config) > " + (
        "docs/reference/configuration.md"
    )
    assert made_with in page
    # The second part is of real runs, and held against the code in tests/real/config.
    assert page.startswith(reference_page()), f"make it again: {made_with}"


def test_the_reference_page_has_every_key() -> None:
    page = reference_page()
    for cls in all_tables():
        _, _, rest = page.partition(f"## `[{cls.TABLE}]`")
        section = rest.partition("\n## ")[0]
        # The first table: another may explain what a key takes.
        table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
        rows = re.findall(r"^\| `(.+?)` \|", table.group() if table else "", re.MULTILINE)
        further = cls.further_keys() or ()
        assert rows == [*(key for key, _, _ in options_of(cls)), *further]


def test_importing_and_reading_is_light() -> None:
    code = (
        "import sys, areal_sim.config as c;"
        "c.load_config('configs/paper/7b-areal.toml');"
        "print(*{'pandas', 'scipy', 'matplotlib', 'pyarrow', 'simpy'} & sys.modules.keys())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert result.stdout.split() == []
