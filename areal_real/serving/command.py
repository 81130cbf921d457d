"""The command line and the environment that start one SGLang server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from areal_real.interfaces import variables_of
from areal_real.serving.guard import TOKEN_FILE_VARIABLE
from areal_real.serving.options import ServerOptions, is_loopback
from areal_real.serving.steps import step_flags

_HERE = Path(__file__).resolve().parent
_TOKEN = "token"

_CPU_FLAGS = (
    *("--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
    *("--cuda-graph-backend-decode", "disabled", "--cuda-graph-backend-prefill", "disabled"),
    # The KV cache is sized in tokens; the fraction only has to be small enough to be granted.
    *("--disable-overlap-schedule", "--mem-fraction-static", "0.05"),
)


def command_line(
    options: ServerOptions, model: Path, *, weight_version: int, port: int, folder: Path
) -> list[str]:
    """What to execute, wrapped so that it dies with us. Nothing secret is in it.

    Args:
        options: how the server is run.
        model: Hugging Face folder.
        weight_version: label of the weights in it.
        port: to listen on.
        folder: private to this server.
    """
    python = options.python
    launcher = "cpu_launcher.py" if options.device == "cpu" else "gpu_launcher.py"
    flags = [
        *("--model-path", str(model), "--weight-version", str(weight_version)),
        *("--host", options.host, "--port", str(port), "--random-seed", str(options.seed)),
        *("--tp-size", str(options.tensor_parallel), "--dtype", options.dtype),
        *("--max-running-requests", str(options.max_running_rollouts)),
        # Token ids in, token ids out; no probing request, no grammar, deltas when streaming.
        *("--skip-tokenizer-init", "--skip-server-warmup", "--grammar-backend", "none"),
        *("--incremental-streaming-output", "--log-level-http", "warning"),
        # Otherwise the scheduler asks for work in a loop, and an idle server takes a whole core.
        "--sleep-on-idle",
    ]
    if options.kv_cache_tokens is not None:
        flags += ["--max-total-tokens", str(options.kv_cache_tokens)]
    if options.record_steps:
        flags += step_flags(folder)
    if not options.prefix_cache:
        flags += ["--disable-radix-cache"]
    if options.device == "cpu":
        flags += _CPU_FLAGS
    guard = [python, "-I", str(_HERE / "die_with_parent.py"), str(os.getpid())]
    # -P: the files beside the launcher are no modules of SGLang's.
    return [*guard, python, "-P", str(_HERE / launcher), *flags, *options.extra_args]


def hand_over_token(options: ServerOptions, folder: Path) -> None:
    """Leave the token where `environment` says: a file of ours alone, in the server's folder."""
    path = folder / _TOKEN
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(options.api_token)


def environment(
    options: ServerOptions, folder: Path, gpus: Sequence[str] | None = None
) -> dict[str, str]:
    """Our environment, with what such a server needs.

    Args:
        options: how the server is run.
        folder: private to this server: its sockets and temporary files go there.
        gpus: of the host, which it may use; None leaves it as it is.
    """
    chosen = {
        TOKEN_FILE_VARIABLE: str(folder / _TOKEN),
        # SGLang leaves temporary files behind; there they are removed with the folder.
        "TMPDIR": str(folder),
        # Its processes find each other through a file, not through a port open to the network.
        "SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE": f"file://{folder}/rendezvous",
        # A probe that generates a token gets no answer while generation is paused.
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if options.device == "cpu":
        chosen |= {
            "SGLANG_USE_CPU_ENGINE": "1",
            "FLASHINFER_DISABLE_VERSION_CHECK": "1",
            "OMP_NUM_THREADS": str(options.threads),
        }
        if options.tensor_parallel > 1:
            # Otherwise SGLang wants a NUMA node for each of its processes.
            cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
            chosen["SGLANG_CPU_OMP_THREADS_BIND"] = "|".join([cores] * options.tensor_parallel)
    if gpus is not None:
        chosen["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    # Weights come to it over the interface that it listens on; on a cluster, where its environment
    # does not say otherwise: it says the same to the trainer.
    interfaces = variables_of(options.host)
    if is_loopback(options.host):
        chosen |= interfaces
    # Otherwise a server one of whose processes has died waits a minute for a CUDA core dump, and
    # answers nobody meanwhile. Whoever wants that dump can set it.
    asked = {**interfaces, "SGLANG_CUDA_COREDUMP_BEFORE_CRASH": "0"}
    return {**asked, **os.environ, **chosen}
