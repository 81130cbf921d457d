"""Configuration: values, defaults, and errors that say where and what."""

from __future__ import annotations

import re
from dataclasses import MISSING, replace
from pathlib import Path
from typing import Any

import pytest

from areal_sched import Limits
from areal_sched.config.options import Option, Section, options_of, toml_value
from areal_sched.errors import ConfigError
from areal_sched.schedulers.areal import Areal
from areal_sim.config import (
    ClusterConfig,
    load_config,
    parse_config,
    resolved_toml,
)
from areal_sim.costs import Roofline
from tests.sim.config_cases import (
    ALL_OPTIONS,
    ROOT,
    SMALL,
    all_tables,
    bad_values,
    refused,
    small,
)

# ---- values and defaults ------------------------------------------------------------------------


def test_a_small_file_and_its_defaults() -> None:
    config = small()
    assert config.cluster.gpu == "H800"
    assert config.cluster.generation_share == 0.75
    assert config.model.name == "r1-distill-qwen-7b"
    assert (config.workload.prompts_per_step, config.workload.group_size) == (512, 16)
    assert config.sim.seed == 1
    assert config.limits() == Limits(
        train_batch_rollouts=8192, group_size=16, eta=8, max_rollouts_in_flight=8192
    )
    assert isinstance(config.new_scheduler(), Areal)
    assert (config.gpus, config.generation_gpus, config.training_gpus) == (32, 24, 8)
    assert (config.servers, config.data_parallel_ranks, config.unused_gpus) == (24, 8, 0)
    assert config.trainer_layout().data_parallel == 8
    assert config.published_hours is None


def test_layouts_and_hardware_make_a_cost_provider() -> None:
    config = small("sim.server.tensor_parallel=4", "sim.cost.prefill_efficiency=0.5")
    provider = Roofline(
        cluster=config.hardware(),
        model=config.model_shape(),
        server_layout=config.server_layout(),
        trainer_layout=config.trainer_layout(),
        servers=config.servers,
        weight_transfer=config.sim.weights.transport,
        factors=config.sim.cost.factors,
    )
    assert provider.server().decode_base_fs > 0
    assert provider.factors.prefill_efficiency == 0.5


@pytest.mark.parametrize("written", ["inf", '"inf"'])
def test_unbounded_is_written_as_inf(written: str) -> None:
    config = parse_config(SMALL.replace("eta = 8", f"eta = {written}\nmax_lag = {written}"))
    assert config.limits().eta is None
    assert config.limits().max_lag is None
    assert "eta = inf\nmax_lag = inf\n" in resolved_toml(config)


def test_a_published_value_is_scaled_to_the_steps_of_the_run() -> None:
    table = '\n[published]\nhours = 50.0\nsteps = 250\nlabel = "a"\n'
    assert parse_config(SMALL + table).published_hours == 50.0
    assert parse_config(SMALL + table, ["workload.steps=25"]).published_hours == 5.0
    without_steps = table.replace("steps = 250\n", "")
    assert parse_config(SMALL + without_steps, ["workload.steps=25"]).published_hours == 50.0


def test_the_table_of_real_runs_is_passed_over() -> None:
    assert parse_config(SMALL + "\n[real]\nanything = 1\n") == small()
    assert "[real] is for areal-real" in refused(SMALL, "real.anything=1")


def test_a_file_of_a_real_run_alone_is_known_as_such() -> None:
    only_real = "[workload]\nprompts_per_step = 4\ngroup_size = 4\nsteps = 3\n[real]\nx = 1\n"
    assert "the file has no [cluster] or [sim]: areal-real reads it" in refused(only_real)
    assert "areal-real reads it" not in refused(SMALL + "\n[real]\nx = 1\n", "cluster.nodes=0")


def test_a_run_can_be_made_and_changed_without_a_file() -> None:
    config = small()
    longer = replace(config, workload=replace(config.workload, steps=3))
    assert longer == small("workload.steps=3")
    with pytest.raises(ConfigError, match=r"^cluster.nodes = 0: expected a whole number >= 1$"):
        ClusterConfig(nodes=0)
    sim = replace(config.sim, trainer=replace(config.sim.trainer, pipeline_parallel=99))
    with pytest.raises(ConfigError, match=r"^sim.trainer.pipeline_parallel = 99: .* 28 layers$"):
        replace(config, sim=sim)


# ---- every key is checked -----------------------------------------------------------------------


def minimal(cls: type[Section]) -> dict[str, Any]:
    """Values for the required fields of one table."""
    examples = {"nodes": 1, "eta": 0, "hours": 1.0, "label": "a"}
    return {
        field.name: examples[field.name]
        for _, field, _ in options_of(cls)
        if field.default is MISSING
    }


@pytest.mark.parametrize(("cls", "key", "option"), ALL_OPTIONS)
def test_a_wrong_value_of_any_key_is_named_with_what_was_expected(
    cls: type[Section], key: str, option: Option
) -> None:
    name = next(field.name for other, field, _ in options_of(cls) if other == key)
    for value in bad_values(option):
        with pytest.raises(ConfigError) as caught:
            cls(**{**minimal(cls), name: value})
        wanted = f"{cls.TABLE}.{key} = {toml_value(value)}: expected {option.expected}"
        assert str(caught.value) == wanted


@pytest.mark.parametrize(("cls", "key", "option"), ALL_OPTIONS)
def test_every_key_is_described(cls: type[Section], key: str, option: Option) -> None:
    assert option.text
    assert option.unit or not re.search(r"_(tokens|bytes|s|flops)$", key) or option.kind == "path"


def test_values_at_their_limits_are_taken() -> None:
    for cls in all_tables():
        for _, _, option in options_of(cls):
            for limit in (option.least, option.most):
                if limit is not None:
                    assert option.checked(limit) == limit
            for choice in option.choices:
                assert option.checked(choice) == choice


# ---- errors say where ---------------------------------------------------------------------------

PLACED = [
    ("[cluster]\nnods = 1\n", "a.toml:2:1: cluster.nods: no such key (did you mean 'nodes'?)"),
    ("[clutser]\n", "a.toml:1:2: clutser: no such key (did you mean 'cluster'?)"),
    ("cluster = 1\n", "a.toml:1:1: cluster = 1: expected a table"),
    (
        "[limits]\n eta = 0\n  colocated = true\n",
        "a.toml:3:3: limits.colocated: no such key (did you mean cluster.colocated?)",
    ),
    (
        '# a comment\n\n[cluster]\nnodes = "3"\n',
        'a.toml:4:1: cluster.nodes = "3": expected a whole number >= 1',
    ),
    (
        "[cluster]\ngpu = 'H80'\nnodes = 1\n",
        "a.toml:2:1: cluster.gpu = 'H80': no such GPU (did you mean 'H800'?)",
    ),
    (
        "[cluster]\n",
        "a.toml:1:2: cluster.nodes: missing: number of nodes, all alike, a whole number >= 1",
    ),
    (
        "cluster = { nodes = 1, colocated = true, generation_share = 0.5 }\n",
        "a.toml:1:42: cluster.generation_share = 0.5: belongs to separate placement; leave it"
        " out, or cluster.colocated = true",
    ),
    ("a = \n", "a.toml:1:5: not TOML: Invalid value"),
    ("a = '''\n\nb", "a.toml:3:2: not TOML: Expected \"'''\""),
]


@pytest.mark.parametrize(("text", "message"), PLACED)
def test_an_error_says_where_and_what(text: str, message: str) -> None:
    assert refused(text) == message


IN_CONTEXT = [
    ("sim.cost.decode_bandwith_efficiency=1", "(did you mean 'decode_bandwidth_efficiency'?)"),
    ("sim.cost.prefill_efficiency=1.5", "sim.cost.prefill_efficiency = 1.5: must be at most 1"),
    ("sim.cost.file=pyproject.toml", 'belongs to the providers "fitted" and "table"'),
    ("sim.cost.provider=fitted", "needs sim.cost.file"),
    ("sim.cost.system=h100", 'sim.cost.system: belongs to the provider "table"'),
    ("sim.server.tensor_parallel=3", "must divide the 8 GPUs of a node"),
    ("sim.trainer.tensor_parallel=8", "would do: 1, 2, 4"),
    ("sim.trainer.pipeline_parallel=29", "r1-distill-qwen-7b has only 28 layers"),
    ("sim.trainer.micro_batch_tokens=8192", "= 28672, must fit into one micro-batch"),
    ("workload.max_response_tokens=200000", "at most 130048 would do"),
    ("workload.preset=math-7b", "(did you mean 'math-7b-boba'?)"),
    ("workload.resample=pooled", "belongs to workload.trace, which is not set"),
    ("workload.trace=nowhere.csv", "no such file, looked for "),
    ("workload.trace=pyproject.toml", "is of no known format"),
    ("workload.length={constant = 1, mu = 2}", "workload.length.mu: not together with constant"),
    ("workload.prompt_length.mu=5", "sigma is missing; needs constant, or mu and sigma"),
    ("model.name=8b", "(did you mean '7b'?)"),
    ("model.config=pyproject.toml", "not JSON"),
    ("limits.max_rollouts_in_flight=8", "no room for one group of 16"),
    ("scheduler.class=arael", "(did you mean 'areal'?)"),
    ("scheduler.class=areal_sched.schedulers.areal:Aral", "(did you mean 'Areal'?)"),
    ("scheduler.class=bounded_lag", "limits.max_lag is not set"),
    ("scheduler.rooting=least_kv", "(did you mean 'routing'?)"),
    ("scheduler.barrier=False", 'scheduler.barrier = "False": expected true or false'),
    ("scheduler.servers_at_once=1.0", "scheduler.servers_at_once = 1.0: expected a whole number"),
    ("scheduler.servers_at_once=0", "scheduler.servers_at_once = 0: expected a whole number >= 1"),
    ("scheduler={servers_at_once = 1, barrier = true}", "leave one of them out"),
    ("scheduler.barrier={a = 1}", "expected a string, a number, true, false, or a list"),
    ("cluster.nodes.x=1", "cluster.nodes is not a table"),
    ("sim=1", "sim = 1: expected a table"),
]


@pytest.mark.parametrize(("override", "part"), IN_CONTEXT)
def test_a_wrong_override_is_named(
    override: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    message = refused(SMALL, override)
    assert part in message
    assert f"--set {override}" in message


@pytest.mark.parametrize("text", ["limits.eta", "=4", "limits.=4", "limits eta=4", ""])
def test_an_override_has_a_key_and_a_value(text: str) -> None:
    assert refused(SMALL, text).startswith(f"--set {text}: expected key=value")


def test_an_error_that_an_override_causes_elsewhere_names_both() -> None:
    message = refused(SMALL, "workload.max_response_tokens=40000")
    assert message.startswith("a.toml: sim.trainer.micro_batch_tokens = 32768: ")
    assert message.endswith("(with --set workload.max_response_tokens=40000)")


def test_exactly_one_kind_of_workload_and_of_model() -> None:
    neither = SMALL.replace('preset = "math-7b-boba"', "steps = 1")
    assert refused(neither) == "a.toml:7:2: workload: needs preset, trace or length"
    both = SMALL + "[workload.length]\nconstant = 100\n"
    message = "workload.length: not together with workload.preset; give one of"
    assert refused(both) == f"a.toml:12:11: {message} preset, trace, length"
    unnamed = SMALL.replace('name = "7b"', "")
    assert refused(unnamed) == "a.toml:4:2: model: needs name or config"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read: No such file"):
        load_config(tmp_path / "missing.toml")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"[cluster]\nnodes = 1 # \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.toml:2:13: not UTF-8"):
        load_config(latin)
