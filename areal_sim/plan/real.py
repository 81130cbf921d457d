"""The tables of a plan that a real run reads: ``[real]`` and those below it."""

from __future__ import annotations

from pathlib import Path

from areal_sched.config.options import toml_value
from areal_sim.plan.question import Question
from areal_sim.plan.space import Candidate

REWARD_WORKERS = 32
REWARD_TIMEOUT_S = 10
PROBLEMS_FILE = "problems.jsonl"
MODELS_FOLDER = "models"


def real_tables(question: Question, candidate: Candidate) -> str:
    """What `areal-real train` needs beside the tables it shares with a simulation.

    The model's weights and the problems are placeholders, said so in a comment. The optimizer's
    values are the paper's (arXiv 2505.24298, table of training settings).
    """
    c = candidate
    if c.colocated:
        return "\n# No [real] table: real servers and trainer have GPUs of their own.\n"
    model = Path(question.model)
    folder = str(model.resolve()) if model.exists() else f"{MODELS_FOLDER}/{question.shape().name}"
    if folder.endswith("config.json"):
        folder = str(Path(folder).parent)
    nodes, _ = question.nodes_of(c.gpus)
    listen = "cluster" if nodes > 1 else "loopback"
    running = max(1, -(-c.max_rollouts_in_flight // c.servers))
    baseline = "none" if question.group_size == 1 else "grpo"
    return f"""
# For areal-real train. Replace real.model.path with a folder that has the weights, and
# real.task.file with your problems.
[real]
device = "cuda"
listen = "{listen}"
checkpoint_every_steps = 5

[real.task]
name = "prompts"
file = "{PROBLEMS_FILE}"

[real.model]
path = {toml_value(folder)}
dtype = "bfloat16"

[real.server]
count = {c.servers}
tensor_parallel = {c.server_tensor_parallel}
max_running_rollouts = {running}
static_memory_fraction = {c.static_memory_fraction}
weight_transfer = {toml_value(question.transport)}

[real.trainer]
tensor_parallel = {c.tensor_parallel}
pipeline_parallel = {c.pipeline_parallel}
data_parallel = {c.data_parallel}
distributed_optimizer = true
recompute_activations = true
minibatches = {c.minibatches}
micro_batch_tokens = {c.micro_batch_tokens}
learning_rate = 2e-5
warmup_steps = 1
adam_beta1 = 0.9
adam_beta2 = 0.95
adam_eps = 1e-5
weight_decay = 0.05
grad_clip = 1.0

[real.ppo]
objective = "decoupled"
baseline = "{baseline}"

[real.rewards]
workers = {REWARD_WORKERS}
timeout_s = {REWARD_TIMEOUT_S}
"""
