"""Whether a run fits: its shape on its model, and its needs on a machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

from areal_real.config.needs import Needs, ServerNeed, TrainerNeed, needs_of
from areal_real.config.run import RealConfig
from areal_real.machine import Machine
from areal_sched.config.model_shape import ModelShape

Part = Literal["shape", "machine"]
Status = Literal["ok", "note", "missing"]

PYTHON = (3, 11)

WANTED: dict[str, str | None] = {
    "torch": "2.13.0",
    "megatron-core": "0.16.1",
    "sglang": "0.5.21",
    "transformers": "5.12.1",
    "safetensors": None,
    "aiohttp": None,
    "psutil": None,
    "math-verify": None,
    "pyseccomp": None,
    "tensorboard": None,
}
"""Packages a run needs, and the versions that were tested together; None: any."""

WANTED_ON_GPUS: dict[str, str | None] = {"flash-attn": None, "sglang-kernel": None}
"""Packages that are needed beside those with ``real.device = "cuda"``."""

OPTIONAL = {"flash-attn": "the trainer takes torch's own attention, which is slower"}
"""Packages a run can do without, and what it does then."""

TRAINER_USABLE_FRACTION = 0.94
"""Of a GPU's memory; the rest is CUDA context, NCCL buffers and fragmentation. Assumed."""

SHM_BYTES = 64 * 2**20
"""Of /dev/shm that torch and NCCL want; it is what containers get by default."""

MOST_PORTS = 64
"""Of the servers of many nodes only some are on this one: more ports are not tried."""

_CPU_BUILD = "+cpu"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the result.

    Attributes:
        part: about the ``shape`` of a run, or about this ``machine``.
        subject: what was looked at.
        found: what is there.
        wanted: what the run wants.
        status: ``missing``: the run cannot start, or would fail; ``note``: worth knowing.
    """

    part: Part
    subject: str
    found: str
    wanted: str
    status: Status


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a run fits, and why.

    Attributes:
        needs: what it needs.
        findings: the lines, those of the shape first.
    """

    needs: Needs
    findings: tuple[Finding, ...]

    def missing(self, part: Part) -> tuple[Finding, ...]:
        """What stands in the way."""
        return tuple(x for x in self.findings if x.part == part and x.status == "missing")

    @property
    def shape_fits(self) -> bool:
        """It could run on a large enough machine."""
        return not self.missing("shape")

    @property
    def fits(self) -> bool:
        """It can run here."""
        return self.shape_fits and not self.missing("machine")


def judge(config: RealConfig, machine: Machine) -> Verdict:
    """Hold a run against its model and a machine.

    Raises:
        ConfigError: the model's ``config.json`` is not one of a supported model.
    """
    model = config.model_shape()
    needs = needs_of(config, model)
    findings = (*_shape(config, model, needs, machine), *_machine(config, needs, machine))
    return Verdict(needs=needs, findings=findings)


# ---- the shape ---------------------------------------------------------------------------------


def _shape(
    config: RealConfig, model: ModelShape | None, needs: Needs, machine: Machine
) -> Iterator[Finding]:
    def fits(subject: str, found: str, wanted: str, status: Status = "ok") -> Finding:
        return Finding(part="shape", subject=subject, found=found, wanted=wanted, status=status)

    work, server, trainer = config.workload, config.real.server, config.real.trainer
    parts = trainer.minibatches * trainer.data_parallel
    yield fits(
        "batch",
        f"{work.prompts_per_step} prompts x {work.group_size} = {config.train_batch_rollouts}",
        f"a multiple of {trainer.minibatches} minibatches x {trainer.data_parallel} ranks"
        f" = {parts}",
    )
    context = work.max_context_tokens
    room = [f"micro-batch {trainer.micro_batch_tokens}"]
    room += [f"KV cache {server.kv_cache_tokens}"] if server.kv_cache_tokens else []
    room += [f"model {model.max_position_embeddings}"] if model else []
    yield fits("longest trajectory", f"{context} tokens", f"at most {', '.join(room)} tokens")
    yield fits(
        "servers", f"{server.count} x tensor parallel {server.tensor_parallel}", _heads(model)
    )
    yield fits(
        "trainer",
        f"tensor {trainer.tensor_parallel} x pipeline {trainer.pipeline_parallel}"
        f" x data {trainer.data_parallel}",
        _heads(model) + (f", {model.num_layers} layers" if model else ""),
    )
    if needs.gpus:
        has = config.cluster.gpus
        yield fits(
            "GPUs of the cluster",
            f"{config.cluster.nodes} x {config.cluster.gpus_per_node} = {has}",
            f"{server.gpus} to generate + {trainer.world_size} to train = {needs.gpus}",
            "ok" if has == needs.gpus else "note",
        )
    path = config.real.model.path
    if model is not None:
        yield fits(
            "model",
            f"{model.name}: {model.parameters / 1e9:.2f}e9 parameters",
            f"{model.num_layers} layers, width {model.hidden_size},"
            f" {model.num_heads} heads, {model.num_kv_heads} KV heads",
        )
    elif path is not None:
        yield fits("model", "not there", f"{path / 'config.json'}", "missing")
    memory_bytes = min((gpu.memory_bytes for gpu in machine.gpus), default=None)
    if needs.trainer is not None:
        yield _trainer_memory(needs.trainer, memory_bytes if needs.gpus else None)
    if needs.server is not None:
        yield _server_memory(config, needs.server, memory_bytes if needs.gpus else None)


def _heads(model: ModelShape | None) -> str:
    if model is None:
        return "looked at when the task has made its model"
    return f"{model.num_heads} heads, {model.num_kv_heads} KV heads"


def _trainer_memory(need: TrainerNeed, gpu_bytes: int | None) -> Finding:
    parts = (
        f"weights {_size(need.weight_bytes)}, gradients {_size(need.gradient_bytes)}, Adam"
        f" {_size(need.optimizer_bytes)}, activations {_size(need.activation_bytes)}, logits"
        f" {_size(need.logit_bytes)}"
    )
    usable = None if gpu_bytes is None else int(gpu_bytes * TRAINER_USABLE_FRACTION)
    return Finding(
        # Without a GPU to hold it against it is a number for people.
        part="shape" if usable is None else "machine",
        subject="memory of a trainer process",
        found=f"{_size(need.total_bytes)} ({parts})",
        wanted="" if usable is None else f"at most {_size(usable)}, usable on a GPU here",
        status="ok" if usable is None or need.total_bytes <= usable else "missing",
    )


def _server_memory(config: RealConfig, need: ServerNeed, gpu_bytes: int | None) -> Finding:
    server = config.real.server
    context = config.workload.max_context_tokens
    subject = "memory of a server process"
    if gpu_bytes is None:
        tokens = server.kv_cache_tokens or context
        return Finding(
            part="shape",
            subject=subject,
            found=f"weights {_size(need.weight_bytes)}, KV cache"
            f" {_size(need.kv_token_bytes * tokens)} for {tokens} tokens",
            wanted="" if server.kv_cache_tokens else "room for one longest trajectory at least",
            status="ok",
        )
    budget = int(gpu_bytes * server.static_memory_fraction)
    tokens = max(0, budget - need.weight_bytes) // need.kv_token_bytes
    wanted = server.kv_cache_tokens or context
    return Finding(
        part="machine",
        subject=subject,
        found=f"weights {_size(need.weight_bytes)} of {_size(budget)}: KV cache of {tokens} tokens,"
        f" {tokens // context} longest trajectories",
        wanted=f"at least {wanted} tokens",
        status="ok" if tokens >= wanted else "missing",
    )


# ---- the machine -------------------------------------------------------------------------------


def _machine(config: RealConfig, needs: Needs, machine: Machine) -> Iterator[Finding]:
    def has(subject: str, found: str, wanted: str, good: bool, bad: Status = "missing") -> Finding:
        status: Status = "ok" if good else bad
        return Finding(part="machine", subject=subject, found=found, wanted=wanted, status=status)

    python = ".".join(map(str, machine.python))
    yield has("Python", python, f">= {'.'.join(map(str, PYTHON))}", machine.python >= PYTHON)
    yield from _packages(config, machine)
    threads = -(-needs.threads // needs.nodes)
    yield has(
        "CPU cores",
        f"{machine.cores}",
        f"{threads} to keep all processes busy",
        machine.cores >= threads,
        "note",
    )
    if needs.gpus:
        names = ", ".join(sorted({gpu.name for gpu in machine.gpus}))
        yield has(
            "GPUs",
            f"{len(machine.gpus)}" + (f" ({names})" if names else ""),
            f"{needs.gpus}",
            len(machine.gpus) >= needs.gpus,
        )
        yield has("nodes", "1, this one", f"{needs.nodes}", needs.nodes == 1)
    else:
        yield has(
            "free memory",
            _size(machine.memory_bytes),
            f"{_size(needs.host_bytes)}, estimated for {needs.processes} processes",
            machine.memory_bytes >= needs.host_bytes,
        )
    disk, most = needs.disk_bytes, needs.disk_bytes + needs.answer_bytes
    yield has(
        "free disk",
        f"{_size(machine.disk_bytes)} in {machine.disk_folder}",
        f"{_size(disk)} for weights and checkpoints, at most {_size(most)} with answers",
        machine.disk_bytes >= most,
        "note" if machine.disk_bytes >= disk else "missing",
    )
    yield has(
        "/dev/shm",
        _size(machine.shm_bytes),
        _size(SHM_BYTES),
        machine.shm_bytes >= SHM_BYTES,
        "note",
    )
    yield has(
        "open files",
        f"{machine.open_files}",
        f"{needs.open_files}",
        machine.open_files >= needs.open_files,
    )
    ports = min(needs.ports, MOST_PORTS)
    yield has(
        "ports on loopback",
        f"{machine.ports}",
        f"{ports}",
        machine.ports >= ports,
    )
    yield from _files(config)


def _packages(config: RealConfig, machine: Machine) -> Iterator[Finding]:
    on_gpus = config.real.device == "cuda"
    for name, wanted in (WANTED | WANTED_ON_GPUS if on_gpus else WANTED).items():
        found = machine.packages.get(name)
        status: Status = "missing" if found is None else "ok"
        expected = wanted or "any version"
        if found is not None and wanted is not None and found.partition("+")[0] != wanted:
            status = "note"
            expected += ", which was tested"
        if name == "torch" and on_gpus and found is not None and found.endswith(_CPU_BUILD):
            status = "missing"
            expected += ", a build for CUDA"
        if name in OPTIONAL and found is None:
            status = "note"
            expected += f"; without it {OPTIONAL[name]}"
        yield Finding(
            part="machine",
            subject=name,
            found=found or "not installed",
            wanted=expected,
            status=status,
        )
    if config.real.task.name == "prompts":
        yield Finding(
            part="machine",
            subject="bubblewrap",
            found=machine.bubblewrap or "not installed",
            wanted="for problems of the kind code",
            status="ok" if machine.bubblewrap else "note",
        )


def _files(config: RealConfig) -> Iterator[Finding]:
    """What the configuration names and has to be there. A model that is not is in the shape."""
    path, task = config.real.model.path, config.real.task
    for key, file in config.missing_files():
        if key != "real.model.path":
            yield Finding(
                part="machine", subject=key, found="not there", wanted=str(file), status="missing"
            )
    if path is not None and (path / "config.json").is_file():
        weights = len(list(path.glob("*.safetensors")))
        yield Finding(
            part="machine",
            subject="weights of the model",
            found=f"{weights} files" if weights else "none: they would be drawn at random",
            wanted=f"{path}/*.safetensors",
            status="ok" if weights else "note",
        )
    if task.name == "prompts" and (folder := task.tokenizer or path) is not None:
        there = (folder / "tokenizer.json").is_file()
        yield Finding(
            part="machine",
            subject="tokenizer",
            found="there" if there else "not there",
            wanted=str(folder / "tokenizer.json"),
            status="ok" if there else "missing",
        )


def _size(count: int) -> str:
    """Bytes, for people; 1 GB is 1e9 bytes."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
