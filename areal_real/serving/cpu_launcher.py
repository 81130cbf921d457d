"""SGLang's HTTP server on a machine without a GPU: run this file as a script, with SGLang's flags.

SGLang itself is unmodified: its own `prepare_server_args` and `run_server` do the work, behind
`areal_real.serving.guard`. What is arranged around it:

* PyPI's torchvision links CUDA, so its operators are not registered on a CPU host, and importing
  its Python side then fails on the shape functions of ``nms``. They are declared here, without a
  kernel: a call would raise.
* ``sgl_kernel`` (SGLang's CUDA kernels) is absent. A stand-in answers the imports; its functions
  raise if they are ever called. On CPU they are not: attention is ``torch_native``.
* SGLang times a model's forward passes with CUDA's events. Without CUDA a clock does it.
* What SGLang publishes of each step costs a tenth of the time where a step takes milliseconds. Here
  it is put together with less effort and sent many steps at a time, each with its time.
* SGLang starts its scheduler and detokenizer as fresh interpreters that import everything again
  (it must, with CUDA). Without CUDA they are forked from this process, which has imported
  everything already: one import instead of three.
* Imports that such a server cannot use are left out: the files of other models, and Megatron-Core,
  which SGLang imports for a debugging aid where it finds it.

On two quiet cores it is ready after 8 s; with fresh interpreters that is 15 s, and 3 s more with
all imports.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import multiprocessing
import os
import runpy
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

START_METHOD_VARIABLE = "AREAL_SERVER_START_METHOD"
"""Environment variable: ``fork`` (default) or ``spawn``, how SGLang's processes are started."""


class _StandInKernels(types.ModuleType):
    """A module of functions that exist to be imported and raise when called."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "Stand-in for SGLang's CUDA kernels; nothing here may be called.")
        self.__path__: list[str] = []
        self.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        self.__version__ = "0.0.0"

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)
        qualified = f"{self.__name__}.{name}"

        def kernel(*_: object, **__: object) -> NoReturn:
            raise RuntimeError(
                f"{qualified} is a CUDA kernel: this SGLang server runs on a CPU without it"
            )

        return kernel


def _declare_torchvision_operators() -> list[Any]:
    """Declare the operators whose absence stops torchvision's import; returns what to keep."""
    import torch

    found = importlib.util.find_spec("torchvision")
    for folder in (found.submodule_search_locations or []) if found else []:
        for library in sorted(Path(folder).glob("_C*.so")):
            try:
                torch.ops.load_library(str(library))
            except OSError:
                continue  # linked against CUDA libraries that are not here
            return []
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    boxes = "(Tensor dets, Tensor scores{}, float iou_threshold) -> Tensor"
    fragment.define("nms" + boxes.format(""))
    fragment.define("qnms" + boxes.format(""))
    return [fragment]


def _stand_in_for_kernels() -> None:
    if importlib.util.find_spec("sgl_kernel") is None:
        for name in ("sgl_kernel", "sgl_kernel.kvcacheio"):
            sys.modules[name] = _StandInKernels(name)


def _skip_other_models(flags: list[str]) -> None:
    """Let SGLang import only the files that may define the model's architecture."""
    variable = "SGLANG_DISABLED_MODEL_ARCHS"
    try:
        config = Path(flags[flags.index("--model-path") + 1]) / "config.json"
        architectures = json.loads(config.read_text())["architectures"]
    except (ValueError, IndexError, OSError, KeyError):
        return  # no local Hugging Face folder: SGLang says what is wrong with it
    found = importlib.util.find_spec("sglang")
    if variable in os.environ or found is None or not found.submodule_search_locations:
        return
    folder = Path(next(iter(found.submodule_search_locations))) / "srt" / "models"
    needed: list[str] = []
    other: list[str] = []
    for file in sorted(folder.glob("*.py")):
        text = file.read_text(encoding="utf-8")
        defines = any(f"class {name}(" in text for name in architectures)
        (needed if defines else other).append(file.stem)
    if needed:
        os.environ[variable] = ",".join(other)


def _fork_children() -> None:
    """Answer SGLang's wish for the ``spawn`` start method with ``fork``."""
    import sglang.srt.entrypoints.engine as engine

    original = multiprocessing.set_start_method
    method = os.environ.get(START_METHOD_VARIABLE, "fork")

    def set_start_method(wanted: str | None, force: bool = False) -> None:
        original(method if wanted == "spawn" else wanted, force=force)

    engine.mp.set_start_method = set_start_method


def _time_without_events() -> None:
    """Let SGLang's device timer read a clock: on a CPU a call returns when its work is done."""
    import time

    import torch
    from sglang.srt.utils import device_timer

    class Moment:
        def __init__(self, enable_timing: bool = True) -> None:
            self.seconds = 0.0

        def record(self) -> None:
            self.seconds = time.perf_counter()

        def query(self) -> bool:
            return True

        def elapsed_time(self, end: Moment) -> float:
            return (end.seconds - self.seconds) * 1e3  # milliseconds, as CUDA's

    if not torch.cuda.is_available():
        cuda = types.SimpleNamespace(Event=Moment)
        device_timer.torch = types.SimpleNamespace(cuda=cuda)


class _StepPublisher:
    """In place of SGLang's, which has a thread: sends a list of steps as one message.

    A step is (end on the machine's monotonic clock in ns, seconds the model ran, rollouts
    prefilled, tokens prefilled, tokens of these found in the cache, rollouts decoded, tokens in
    their KV caches).
    """

    AT_ONCE = 32
    OLDEST_NS = 300_000_000

    def __init__(self, endpoint: str, worker_id: str, dp_rank: int) -> None:
        import msgspec
        import zmq

        self._encode = msgspec.msgpack.Encoder().encode
        self._socket = zmq.Context().socket(zmq.PUB)
        self._socket.bind(endpoint)
        self._steps: list[tuple[Any, ...]] = []
        self._number = 0

    def publish(self, step: tuple[Any, ...]) -> None:
        steps = self._steps
        steps.append(step)
        if len(steps) >= self.AT_ONCE or step[0] - steps[0][0] > self.OLDEST_NS:
            number = self._number.to_bytes(8, "big")
            self._number += 1
            self._socket.send_multipart((b"", number, self._encode(steps)))
            steps.clear()

    def shutdown(self) -> None:
        self._socket.close(linger=0)


def _publish_steps_cheaply() -> None:
    import time

    from sglang.srt.managers.scheduler_components import metrics_reporter
    from sglang.srt.observability import forward_pass_metrics

    def emit(reporter: Any, batch: Any, result: Any = None) -> None:
        scheduler = reporter.scheduler
        reporter.forward_pass_device_timer._report()
        forward_s, scheduler._fpm_gpu_time_acc = scheduler._fpm_gpu_time_acc, 0.0
        prefilled = new = cached = decoded = context = 0
        if batch.forward_mode.is_decode():
            decoded, context = len(batch.seq_lens_cpu), int(batch.seq_lens_cpu.sum())
        elif batch.forward_mode.is_extend():
            told = batch.prefill_stats
            prefilled, new, cached = told.num_new_seqs, told.log_input_tokens, told.log_hit_tokens
        if prefilled or decoded:
            step = (time.monotonic_ns(), forward_s, prefilled, new, cached, decoded, context)
            scheduler._fpm_publisher.publish(step)

    forward_pass_metrics._FpmPublisherThread = _StepPublisher
    metrics_reporter.SchedulerMetricsReporter._emit_forward_pass_metrics = emit


# At the top level: with the start method ``spawn`` the children import this file, not `main`.
# The key signs what passes between SGLang's processes; spawned ones inherit it.
_KEPT = _declare_torchvision_operators()
_stand_in_for_kernels()
sys.modules.setdefault("megatron", None)  # type: ignore[arg-type]  # importing it now fails
_skip_other_models(sys.argv[1:])


def main() -> None:
    """Serve until killed."""
    runpy.run_path(str(Path(__file__).with_name("guard.py")))["install"]()
    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    arguments = prepare_server_args(sys.argv[1:])
    _time_without_events()
    _publish_steps_cheaply()
    _fork_children()
    try:
        run_server(arguments)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    _time_without_events()  # spawned
    _publish_steps_cheaply()
