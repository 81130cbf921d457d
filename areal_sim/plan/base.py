"""From a question and a candidate to a configuration.

The configuration is written as TOML, so that what is simulated is what the user gets.
"""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path

from areal_sched.config.options import toml_value
from areal_sched.errors import ConfigError
from areal_sim.config import RunConfig, parse_config, resolved_toml
from areal_sim.costs.constants import Factors
from areal_sim.plan.question import TASKS, Question
from areal_sim.plan.space import MEMORY_SHARES, Candidate
from areal_sim.published.calibration import FILE as CALIBRATION
from areal_sim.published.systems import CHECKPOINT_BYTES, CHECKPOINT_EVERY_S

_NAME = "plan"


@functools.cache
def calibrated() -> dict[str, float]:
    """The numbers fitted to the paper's runs, by name."""
    return dict(tomllib.loads(CALIBRATION.read_text(encoding="utf-8"))["values"])


def cost_keys(question: Question) -> dict[str, float]:
    """What a question's costs put into ``[sim.cost]``."""
    if question.costs == "roofline":
        return {}
    values = calibrated()
    disk = values["disk_bytes_per_s"]
    return {
        "server_layer_overhead_s": values["server_layer_overhead_s"],
        "tensor_parallel_wait_s": values["tensor_parallel_wait_s"],
        "training_efficiency": values["training_efficiency"],
        "forward_efficiency": values["training_efficiency"],
        "switch_overhead_s": values["sync_switch_s"],
        "disk_write_bytes_per_s": disk,
        "disk_read_bytes_per_s": disk,
    }


def length_scale(question: Question) -> float:
    """How many times as long answers are as the preset or the trace says."""
    if question.length_scale is not None:
        return question.length_scale
    if question.costs == "paper" and question.task in TASKS:
        return calibrated()[f"{question.task}_length_scale"]
    return 1.0


def toml_of(question: Question, candidate: Candidate, comment: str = "") -> str:
    """The text of the configuration of a candidate.

    Args:
        question: for which it is meant.
        candidate: layout, split and schedule.
        comment: lines to begin with.
    """
    c = candidate
    nodes, per_node = question.nodes_of(c.gpus)
    model = f"name = {toml_value(question.shape().name)}"
    if (path := Path(question.model)).exists():
        model = f"config = {toml_value(str(path.resolve()))}"
    if question.trace is not None:
        lengths = f"trace = {toml_value(str(question.trace.resolve()))}"
    else:
        task = str(question.task)
        lengths = f"preset = {toml_value(TASKS[task][0] if task in TASKS else task)}"
    prices = dict(question.prices)
    price = f"\nusd_per_gpu_hour = {prices[c.gpu]!r}" if c.gpu in prices else ""
    share = "colocated = true" if c.colocated else f"generation_share = {c.generation_share!r}"
    lag = f"\nmax_lag = {question.max_lag}" if question.max_lag is not None else ""
    # As the released system: generation goes on when trainer and evaluation are through.
    resume = '\nresume_after = "evaluation"' if c.scheduler == "areal" else ""
    keys = cost_keys(question)
    disk = keys.get("disk_write_bytes_per_s", Factors().disk_write_bytes_per_s)
    save_s = question.shape().parameters * CHECKPOINT_BYTES / disk
    cost = "".join(f"{key} = {value:.4g}\n" for key, value in keys.items())
    return f"""\
{comment}
[cluster]
gpu = {toml_value(c.gpu)}
nodes = {nodes}
gpus_per_node = {per_node}
{share}{price}

[model]
{model}

[workload]
{lengths}
length_scale = {length_scale(question):.4g}
prompts_per_step = {question.prompts_per_step}
group_size = {question.group_size}
max_prompt_tokens = {question.max_prompt_tokens}
max_response_tokens = {question.max_response_tokens}
steps = {question.steps}

[limits]
eta = {c.eta}{lag}
max_rollouts_in_flight = {c.max_rollouts_in_flight}

[scheduler]
class = {toml_value(c.scheduler)}{resume}

[sim]
seed = {question.seed}

[sim.server]
tensor_parallel = {c.server_tensor_parallel}
static_memory_fraction = {c.static_memory_fraction}

[sim.trainer]
tensor_parallel = {c.tensor_parallel}
pipeline_parallel = {c.pipeline_parallel}
minibatches = {c.minibatches}
micro_batch_tokens = {c.micro_batch_tokens}

[sim.weights]
transport = {toml_value(question.transport)}

[sim.evaluation]
save_s = {save_s:.4g}
every_s = {CHECKPOINT_EVERY_S}

[sim.cost]
{cost}"""


def text_of(question: Question, candidate: Candidate, comment: str) -> str:
    """The configuration of a candidate for the user, with the question's changes.

    With changes every key is written out: whichever they touch is then where it belongs.
    """
    if not question.changes:
        return toml_of(question, candidate, comment)
    return f"{comment}\n{resolved_toml(config_of(question, candidate))}\n"


def config_of(question: Question, candidate: Candidate, changes: tuple[str, ...] = ()) -> RunConfig:
    """The configuration of a candidate, with the question's changes and further ones.

    Raises:
        ConfigError: the changes contradict the rest.
    """
    text = toml_of(question, candidate)
    try:
        return parse_config(text, overrides=[*question.changes, *changes], name=_NAME)
    except ConfigError as error:
        # Nobody has the file whose line it would be.
        raise ConfigError(re.sub(rf"^{_NAME}:\d+:\d+: ", "", str(error))) from None


def probe(question: Question) -> RunConfig:
    """A configuration that has what is the same for every candidate: costs, lengths, network.

    Raises:
        ConfigError: the question's changes contradict the rest.
    """
    offer = question.gpus[0]
    candidate = Candidate(
        gpu=offer.gpu,
        gpus=max(2, min(offer.count or question.gpus_per_node, question.gpus_per_node)),
        scheduler="areal",
        colocated=False,
        server_tensor_parallel=1,
        servers=1,
        static_memory_fraction=MEMORY_SHARES[0],
        tensor_parallel=1,
        pipeline_parallel=1,
        data_parallel=1,
        micro_batch_tokens=question.max_prompt_tokens + question.max_response_tokens,
        minibatches=1,
        eta=0,
        max_rollouts_in_flight=question.train_batch_rollouts,
    )
    return config_of(question, candidate)
