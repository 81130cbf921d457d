"""Which published RL runs can be set up as simulations, and what had to be assumed for it.

What a row of the file says is read from the file. What it does not say is here, by case: length
distribution, minibatches, layouts. What cannot be assumed is a reason to leave a case out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from areal_sim.build import server_memory_of, source_of
from areal_sim.config import RunConfig, load_config, parse_config
from areal_sim.memory import DoesNotFit
from benchmarks.measured import ROOT, DataError, Row
from benchmarks.shapes import CONFIGS, write_config
from traces import tabulate

GPUS_PER_NODE = 8
MICRO_BATCH_TOKENS = 32_768
"""Assumed: none of the rows says. At least the longest trajectory."""
TRAINER_PARALLEL = (1, 2, 4, 8)
"""Tried in this order where a row gives no layout of the trainer: the first that fits is taken."""
SAMPLED_GROUPS = 2_000
"""Prompts drawn to find the scale that gives a stated mean length."""
SCALES = (0.01, 4.0)
"""Between these a scale is looked for."""
SCALE_TOLERANCE = 2e-3

MODEL_OF = {
    "Qwen2.5-Math-7B": "r1-distill-qwen-7b",  # the same shape, made for a longer context
    "DeepSeek-R1-Distill-Qwen-1.5B": "r1-distill-qwen-1.5b",
    "Qwen2-7B-Instruct": "qwen2-7b",
    "Llama3.1-8B": "llama-3.1-8b",
    "Qwen3-32B": "qwen3-32b",
}
"""Models of the file, and names in `areal_sim.models` or `benchmarks.shapes`."""


@dataclass(frozen=True, slots=True)
class Assumed:
    """What a row leaves open.

    Attributes:
        preset: of `traces.presets`, for the spread of the lengths.
        gpu: where the file's is not a name in `areal_sim.hardware`.
        group_size: where the file gives sequences only.
        minibatches: where the file does not give the prompts of one.
        mean_is_context: the file's mean length includes the prompt.
        asynchronous: eta, and that the proximal pass is left out; None: colocated, synchronous.
    """

    preset: str
    gpu: str | None = None
    group_size: int | None = None
    minibatches: int = 4
    mean_is_context: bool = False
    asynchronous: int | None = None


# verl's fully asynchronous trainer uses the servers' log-probabilities. Its staleness threshold of
# 0.5 batches is between eta 0 and 1.
_VERL_ASYNC = Assumed("math-7b-boba", asynchronous=1)

ASSUMED: dict[str, Assumed] = {
    "verl_fa_7B_sync_32": Assumed("math-7b-boba"),
    "verl_fa_7B_sync_128": Assumed("math-7b-boba"),
    "verl_fa_7B_async_32": _VERL_ASYNC,
    "verl_fa_7B_async_128": _VERL_ASYNC,
    "verl_fa_7B_reqbatch4": _VERL_ASYNC,
    "rlinf_verl_R1D1.5B_8H100": Assumed("math-1.5b-boba"),
    "verl_gsm8k_qwen2-7B_trtllm_8gpu": Assumed("math-1.5b-deepscaler-after-rl", gpu="H100"),
    "nemo05_Llama3.1-8B_on-policy_16": Assumed(
        "math-1.5b-deepscaler-after-rl", group_size=32, mean_is_context=True
    ),
    "nemo05_Qwen3-32B_on-policy_32": Assumed(
        "math-1.5b-deepscaler-after-rl", group_size=32, mean_is_context=True
    ),
}

SCALE_FITTED_ON = "verl_fa_7B_sync_32"
"""Its log-probability pass gives the length scale of all rows that begin with `SCALE_SHARED`."""
SCALE_SHARED = "verl_fa_7B_"

PAPER_CONFIGS = {
    "areal_T1_1.5B_verl": "1.5b-verl",
    "areal_T1_1.5B_syncareal": "1.5b-sync",
    "areal_T1_1.5B_areal": "1.5b-areal",
    "areal_T1_14B_verl": "14b-verl",
    "areal_T1_14B_syncareal": "14b-sync",
    "areal_T1_14B_areal": "14b-areal",
}
"""Cases that are configurations of the project already: files in ``configs/paper``."""
PAPER_FITTED = "areal_T1_"
"""What the numbers in those files were fitted to (`areal_sim.published.calibration`)."""

_NO_SIZE = "the batch size is not given"
_MOE = "a mixture of experts: not modelled"
_STAGES = "lengths grow over three stages, and the file gives the mean step over all of them"
_ONLY_RATE = "gives TFLOP/s of a trainer, no times; training_efficiency is fitted to it"

REASONS: dict[str, str] = {
    "verl_1off_7B_sync_fsdp2": _NO_SIZE,
    "verl_1off_7B_1stepoff_fsdp2": _NO_SIZE,
    "areal_F6a_1B_train_tflops": _ONLY_RATE,
    "areal_F6a_7B_train_tflops": _ONLY_RATE,
    "areal_F6a_32B_train_tflops": _ONLY_RATE,
    "areal_v0.1_1.5B_1n": _STAGES,
    "areal_v0.1_1.5B_4n": _STAGES,
    "areal_v0.1_1.5B_16n": _STAGES,
    "areal_v0.1_7B_4n": _STAGES,
    "areal_v0.1_7B_16n": _STAGES,
    "areal_v0.1_7B_n16_log": "the number of GPUs is not given",
    "nemo_Qwen3-235B_on-policy_128": _MOE,
    "nemo_Qwen3-30B-A3B_on-policy_32": _MOE,
    "nemo_DeepSeek-V3_on-policy_256": _MOE,
    "skyrl_qwen3.5-9B_base": "linear attention: not modelled; and the lengths are not given",
    "unirl_verl_qwen3-4B_0-100": "neither the GPU nor the batch size is given",
    "unirl_verl_qwen3-4B_200-300": "neither the GPU nor the batch size is given",
    "unirl_verl_qwen3-4B_600-1000": "neither the GPU nor the batch size is given",
    "deepcoder_14B_32gpu": "GPU, batch size and lengths are not given",
    "verl_1208_gh200_qwen": "the model and the number of GPUs are not given",
}
"""Why a case cannot be set up."""


@contextmanager
def model_files() -> Iterator[Path]:
    """A folder, for as long as it is needed, with the shapes that have no name in the project."""
    with TemporaryDirectory() as name:
        for model in CONFIGS:
            write_config(model, Path(name))
        yield Path(name)


def config_of(row: Row, folder: Path, *, steps: int, length_scale: float) -> RunConfig:
    """The configuration of a row in `ASSUMED`.

    Args:
        row: of the file.
        folder: of `model_files`.
        steps: training steps to simulate.
        length_scale: responses are made this many times as long as the preset's.

    Raises:
        DataError: the row's model is not known, or no layout of the trainer fits.
        ConfigError: the row's numbers contradict each other.
    """
    assumed, last = ASSUMED[row.text("case_id")], None
    for parallel in TRAINER_PARALLEL:
        text = _toml(row, assumed, steps, length_scale, parallel)
        config = parse_config(text, name=row.text("case_id"), folder=folder)
        try:
            server_memory_of(config)
        except DoesNotFit as error:
            last = error
        else:
            return config
    raise DataError(f"{row.where}: no layout of the trainer fits: {last}")


def paper_config(row: Row, *, steps: int) -> RunConfig:
    """The configuration of a row in `PAPER_CONFIGS`."""
    path = ROOT / "configs" / "paper" / f"{PAPER_CONFIGS[row.text('case_id')]}.toml"
    return load_config(path, [f"workload.steps={steps}"])


def scale_for_mean(row: Row, folder: Path) -> float:
    """The length scale that gives the row's mean length, found by bisection.

    Raises:
        DataError: the row has no mean, or no scale gives it.
    """
    wanted = row.positive("resp_mean")
    low, high = SCALES
    if not _mean_tokens(row, folder, low) <= wanted <= _mean_tokens(row, folder, high):
        raise DataError(f"{row.where}: no lengths have the mean {wanted:g} under the row's limit")
    while high / low > 1 + SCALE_TOLERANCE:
        middle = math.sqrt(low * high)
        if _mean_tokens(row, folder, middle) < wanted:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def _mean_tokens(row: Row, folder: Path, length_scale: float) -> float:
    config = config_of(row, folder, steps=1, length_scale=length_scale)
    drawn = tabulate(
        source_of(config.workload, config.sim.seed),
        count=SAMPLED_GROUPS,
        group_size=config.workload.group_size,
    )
    tokens = drawn["response_tokens"]
    if ASSUMED[row.text("case_id")].mean_is_context:
        tokens = tokens + drawn["prompt_tokens"]
    return float(tokens.mean())


def _toml(row: Row, assumed: Assumed, steps: int, length_scale: float, parallel: int) -> str:
    if (named := MODEL_OF.get(row.text("model"))) is None:
        raise DataError(f"{row.where}: column 'model': {row.text('model')!r}: not known here")
    model = f'config = "{named}.json"' if named in CONFIGS else f'name = "{named}"'
    gpus = int(row.positive("n_gpus_total"))
    per_node = min(gpus, GPUS_PER_NODE)
    group = assumed.group_size or int(row.positive("n_per_prompt"))
    prompts = int(row.maybe("prompts_per_step") or row.positive("seqs_per_step") // group)
    of_one = row.maybe("minibatch_prompts")
    minibatches = round(prompts / of_one) if of_one else assumed.minibatches
    if assumed.asynchronous is None:
        placement, scheduler, eta = "colocated = true", "synchronous", 0
    else:
        share = row.positive("n_rollout_gpus") / gpus
        placement, scheduler = f"generation_share = {share!r}", "areal"
        eta = assumed.asynchronous
    return f"""
[cluster]
gpu = "{assumed.gpu or row.text("hardware")}"
nodes = {gpus // per_node}
gpus_per_node = {per_node}
{placement}

[model]
{model}

[workload]
preset = "{assumed.preset}"
length_scale = {length_scale!r}
prompts_per_step = {prompts}
group_size = {group}
max_response_tokens = {int(row.positive("max_resp"))}
steps = {steps}

[limits]
eta = {eta}
max_rollouts_in_flight = {(eta + 1) * prompts * group}

[scheduler]
class = "{scheduler}"

[sim.server]
tensor_parallel = {int(row.maybe("tp_rollout") or 1)}

[sim.trainer]
tensor_parallel = {parallel}
minibatches = {minibatches}
micro_batch_tokens = {MICRO_BATCH_TOKENS}
recompute_proximal = {"true" if assumed.asynchronous is None else "false"}

[sim.weights]
transport = "collective"
"""
