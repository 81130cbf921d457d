"""The configuration of a real run: values, defaults, and errors that say where and what."""

from __future__ import annotations

import pickle
import re
import tomllib
from dataclasses import MISSING, replace
from pathlib import Path

import pytest

from areal_real.config import RealConfig, config_sha256, load_config, parse_config, resolved_toml
from areal_sched import Limits
from areal_sched.config.options import Option, Section, options_of, tables_of, toml_value
from areal_sched.errors import ConfigError
from areal_sched.schedulers.areal import Areal
from areal_sim.config import RunConfig
from tests.real.config.cases import SMALL, model_folder, refused, small
from tests.sim.config_cases import all_tables, bad_values

TABLES = list(all_tables(RealConfig))
OPTIONS = [
    pytest.param(cls, field.name, key, option, id=f"{cls.TABLE}.{key}")
    for cls in TABLES
    for key, field, option in options_of(cls)
]

# ---- values and defaults ------------------------------------------------------------------------


def test_a_small_file_and_its_defaults() -> None:
    config = small()
    assert config.limits() == Limits(
        train_batch_rollouts=128, group_size=8, eta=2, max_rollouts_in_flight=8192
    )
    assert isinstance(config.new_scheduler(), Areal)
    assert (config.real.device, config.real.seed) == ("cpu", 1)
    assert (config.real.task.name, config.real.task.difficulty) == ("arithmetic", 1)
    assert (config.real.ppo.clip, config.real.ppo.behaviour_weight_cap) == (0.2, 5.0)
    assert (config.real.listen, config.real.server.extra_args) == ("loopback", ())
    assert (config.gpus_needed, config.model_shape(), list(config.missing_files())) == (0, None, [])


def test_the_word_inf() -> None:
    config = small("real.ppo.behaviour_weight_cap=inf", "real.evaluation.every_steps=inf")
    assert config.real.ppo.behaviour_weight_cap is None
    assert config.real.evaluation.every_steps is None
    assert parse_config(resolved_toml(config)) == config


def test_a_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    path = model_folder(tmp_path / "model")
    changes = [
        *('real.server.extra_args=["--log-level", "info"]', f"real.model.path={path}"),
        *("real.trainer.tensor_parallel=2", "scheduler.routing=least_kv", "limits.eta=inf"),
        *("real.listen=cluster", "real.server.max_count=3"),
    ]
    config = small(*changes)
    again = parse_config(resolved_toml(config))
    assert again == config
    assert hash(again) == hash(config)
    assert pickle.loads(pickle.dumps(config)) == config
    assert config_sha256(again) == config_sha256(config) != config_sha256(small(*changes[:-3]))
    assert config.real.server.extra_args == ("--log-level", "info")


def test_the_hash_goes_by_the_files_of_the_model_and_not_by_its_folder(tmp_path: Path) -> None:
    hashes = []
    for folder, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / folder).mkdir()
        model = model_folder(tmp_path / folder / "model")
        (model / "model.safetensors").write_bytes(weights)
        hashes.append(config_sha256(small(f"real.model.path={model}")))
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_large_file_of_a_model_counts_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("areal_sched.config.write._LARGE_FILE_BYTES", 1000)
    model = model_folder(tmp_path / "model")
    hashes = []
    for weights in (b"1" * 1001, b"2" * 1001, b"1" * 1002):
        (model / "model.safetensors").write_bytes(weights)
        hashes.append(config_sha256(small(f"real.model.path={model}")))
    assert hashes[0] == hashes[1] != hashes[2]


def test_another_task_or_scheduler_does_not_get_the_options_of_the_old_one(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    text = SMALL + (
        '[real.task]\nname = "prompts"\nfile = "a.jsonl"\nheld_out_problems = 9\n'
        f"[real.model]\npath = {toml_value(model)}\n[real.evaluation]\nproblems = 9\n"
        '[scheduler]\nrouting = "least_kv"\n'
    )
    changed = parse_config(text, ["real.task.name=arithmetic", "scheduler.class=synchronous"])
    assert (changed.real.task.file, changed.real.task.held_out_problems) == (None, 9)
    assert changed.scheduler.options == ()


# ---- every key ----------------------------------------------------------------------------------


def valid(cls: type[Section]) -> dict[str, object]:
    """Values for the required fields of a table."""
    fields = {field.name for _, field, _ in options_of(cls) if field.default is MISSING}
    assert fields <= {"eta"}
    return dict.fromkeys(fields, 0)


@pytest.mark.parametrize(("cls", "name", "key", "option"), OPTIONS)
def test_a_wrong_value_of_any_key_is_named_with_what_was_expected(
    cls: type[Section], name: str, key: str, option: Option
) -> None:
    wrong: list[object] = ["a", ["a", 1], 3] if option.kind == "texts" else [*bad_values(option)]
    for value in wrong:
        with pytest.raises(ConfigError) as caught:
            cls(**{**valid(cls), name: value})
        wanted = f"{cls.TABLE}.{key} = {toml_value(value)}: expected {option.expected}"
        assert str(caught.value) == wanted


@pytest.mark.parametrize(("cls", "name", "key", "option"), OPTIONS)
def test_every_key_is_described_and_in_the_resolved_file(
    cls: type[Section], name: str, key: str, option: Option
) -> None:
    assert option.text
    assert option.unit or not re.search(r"_(tokens|bytes|s|steps)$", key)
    document = tomllib.loads(resolved_toml(small()))
    for part in cls.TABLE.split("."):
        document = document[part]
    assert key in document or f"# {key} is not set" in resolved_toml(small())


# ---- two worlds, one file -----------------------------------------------------------------------


def keys_of(cls: type[Section]) -> set[str]:
    return {key for key, *_ in (*options_of(cls), *tables_of(cls))}


@pytest.mark.parametrize("name", ["", "cluster", "workload", "limits", "scheduler"])
def test_what_a_real_run_passes_over_is_what_only_a_simulation_reads(name: str) -> None:
    real: type[Section] = RealConfig
    simulated: type[Section] = RunConfig
    if name:
        real, simulated = (
            next(cls for key, _, cls in tables_of(root) if key == name)
            for root in (RealConfig, RunConfig)
        )
    assert keys_of(simulated) - keys_of(real) == real.ELSEWHERE
    assert keys_of(real) - keys_of(simulated) == simulated.ELSEWHERE


def test_what_is_for_simulations_is_passed_over() -> None:
    more = """
[sim]
whatever = 1
[model]
name = "7b"
[published]
hours = 1
[cluster]
gpu = "H800"
colocated = true
"""
    text = SMALL.replace("steps = 10", 'steps = 10\npreset = "x"\nlength = {constant = 3}')
    assert parse_config(text + more) == small()


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("sim.seed=2", "[sim]"),
        ("model.name=7b", "[model]"),
        ("cluster.gpu=H100", "cluster.gpu"),
        ("workload.length.constant=3", "workload.length"),
    ],
)
def test_what_is_for_simulations_cannot_be_set(override: str, what: str) -> None:
    message = refused(SMALL, override)
    assert message == f"--set {override}: {what} is for areal-sim, a real run does not read it"


def test_a_file_of_a_simulation_is_known_as_such() -> None:
    text = SMALL[: SMALL.index("[real")]
    assert "[real" not in text
    assert "the file has no [real]: areal-sim reads it" in refused(text)
    assert "areal-sim reads it" not in refused("x = 1\n")


# ---- errors say where ---------------------------------------------------------------------------

PLACED = [
    ("[real.servr]", "a.toml:2:7: real.servr: no such key (did you mean 'server'?)"),
    (
        "[real.server]\n\ncuont = 2",
        "a.toml:4:1: real.server.cuont: no such key (did you mean 'count'?)",
    ),
    ("[cluster]\nnods = 1", "a.toml:3:1: cluster.nods: no such key (did you mean 'nodes'?)"),
    (
        "[real]\nclip = 0.3",
        "a.toml:3:1: real.clip: no such key (did you mean real.ppo.clip?)",
    ),
    (
        "[real.ppo]\n  clip = 1.0",
        "a.toml:3:3: real.ppo.clip = 1.0: expected a number > 0 and < 1",
    ),
    ("[real]\nserver = 3", "a.toml:3:1: real.server = 3: expected a table"),
]


@pytest.mark.parametrize(("text", "message"), PLACED)
def test_an_error_says_where_and_what(text: str, message: str) -> None:
    assert refused(f"limits.eta = 0\n{text}\n") == message


IN_CONTEXT = [
    (["real.trainer.minibatches=3"], "batch of workload.prompts_per_step * group_size = 128"),
    (["real.trainer.data_parallel=3"], "over minibatches * data_parallel = 3"),
    (["workload.max_response_tokens=5000"], "micro_batch_tokens = 4096: the longest trajectory"),
    (["real.server.kv_cache_tokens=95"], "kv_cache_tokens = 95: the longest trajectory"),
    (["workload.group_size=1"], 'compares the answers to one prompt, but workload.group_size = 1'),
    (["real.ppo.baseline=rloo", "real.ppo.divide_by_std=true"], 'this is "rloo"'),
    (["real.evaluation.problems=201"], "only real.task.held_out_problems = 200 are held out"),
    (["real.task.file=a.jsonl"], 'belongs to the task "prompts"'),
    (["real.task.name=prompts"], "needs real.task.file"),
    (["real.task.name=prompts", "real.task.file=a.jsonl"], "needs real.model.path"),
    (["real.warm_start.steps=1", "real.warm_start.batch_sequences=1",
      "real.trainer.data_parallel=2"], "fewer than real.trainer.data_parallel = 2"),
    (["real.server.count=3", "real.server.max_count=2"], "less than real.server.count = 3"),
    (['real.server.extra_args=["--tp=2"]'], "--tp is set by real.server.tensor_parallel"),
    (["real.device=cuda", "cluster.gpus_per_node=1"], "the cluster has cluster.nodes"),
    (["real.device=cuda", "real.server.tensor_parallel=3"], "must divide cluster.gpus_per_node"),
    (["limits.max_rollouts_in_flight=7"], "no room for one group of 8"),
    (["scheduler.class=arael"], "(did you mean 'areal'?)"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "part"), IN_CONTEXT)
def test_what_does_not_go_together_is_named(overrides: list[str], part: str) -> None:
    message = refused(SMALL, *overrides)
    assert part in message
    assert any(f"--set {override}" in message for override in overrides)


def test_the_cpu_needs_a_size_of_the_kv_cache_and_a_gpu_does_not() -> None:
    unset = SMALL.replace("kv_cache_tokens = 16_384", "")
    assert "real.server.kv_cache_tokens: has to be set" in refused(unset)
    assert parse_config(unset, ["real.device=cuda"]).gpus_needed == 2


def test_the_task_of_prompts_has_nothing_to_warm_start_with(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    changes = ["real.task.name=prompts", "real.task.file=a.jsonl", f"real.model.path={model}"]
    assert small(*changes).real.task.difficulty is None
    assert 'task "prompts" has no answers' in refused(SMALL, *changes, "real.warm_start.steps=5")
    assert 'belongs to the task "arithmetic"' in refused(SMALL, *changes, "real.task.difficulty=2")


@pytest.mark.parametrize(
    ("flag", "key"), [("--api-key", "every run makes a token"), ("--host", "real.listen")]
)
def test_who_may_reach_a_server_is_not_left_to_flags(flag: str, key: str) -> None:
    told = refused(SMALL + f'extra_args = ["{flag}", "s3cr3t"]\n')
    assert f"{flag} is set by " in told
    assert key in told


# ---- the model ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        # 8 heads, 2 KV heads, MLP 96: a server may repeat KV heads, the trainer may not.
        (["real.server.tensor_parallel=3"], "would do: 1, 2, 4, 8"),
        (["real.trainer.tensor_parallel=4"], "would do: 1, 2"),
        (["real.trainer.pipeline_parallel=4"], "must divide the 6 layers"),
        (
            ["workload.max_response_tokens=4065", "real.trainer.micro_batch_tokens=8192"],
            "makes a context of 4097 tokens, model has 4096; at most 4064 would do",
        ),
    ],
)
def test_a_layout_that_does_not_fit_the_model_is_named(
    overrides: list[str], part: str, tmp_path: Path
) -> None:
    model = model_folder(tmp_path / "model")
    assert part in refused(SMALL, f"real.model.path={model}", *overrides)
    # Without a model it is not known yet.
    small(*overrides)


def test_a_layout_that_fits_the_model_is_taken(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    config = small(
        *(f"real.model.path={model}", "real.server.tensor_parallel=4"),
        *("real.trainer.tensor_parallel=2", "real.trainer.pipeline_parallel=3"),
    )
    shape = config.model_shape()
    assert shape is not None
    assert (shape.num_layers, shape.num_kv_heads) == (6, 2)
    with pytest.raises(ConfigError, match="must divide the 6 layers"):
        replace(
            config,
            real=replace(config.real, trainer=replace(config.real.trainer, pipeline_parallel=4)),
        )


def test_a_model_that_is_wrong_is_named_and_one_that_is_not_there_is_missing(
    tmp_path: Path,
) -> None:
    model = model_folder(tmp_path / "model", num_attention_heads=0)
    message = refused(SMALL, f"real.model.path={model}")
    assert "real.model.path: model/config.json:1:" in message
    assert "num_attention_heads = 0: expected a positive integer" in message
    config = small(f"real.model.path={tmp_path / 'nowhere'}")
    assert config.model_shape() is None
    assert list(config.missing_files()) == [
        ("real.model.path", tmp_path / "nowhere" / "config.json")
    ]


def test_files_of_a_real_run_need_not_be_there_to_read_it(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    (tmp_path / "run.toml").write_text(
        SMALL + '[real.task]\nname = "prompts"\nfile = "a.jsonl"\n[real.model]\npath = "model"\n',
        encoding="utf-8",
    )
    config = load_config(tmp_path / "run.toml")
    assert config.real.model.path == model
    assert list(config.missing_files()) == [("real.task.file", tmp_path / "a.jsonl")]
    (tmp_path / "a.jsonl").touch()
    assert list(config.missing_files()) == []
