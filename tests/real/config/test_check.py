"""``areal-real check``: verdicts on made-up machines, looking at this one, and what is printed."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from areal_real.check import WANTED, Verdict, judge
from areal_real.commands import check
from areal_real.config import load_config
from areal_real.machine import Gpu, free_ports, look, parse_gpus, visible
from areal_sched.errors import ConfigError
from tests.house.repo import clean_environment
from tests.real.config.cases import H100, READY, ROOT, SMALL, machine, model_folder, small

# ---- verdicts -----------------------------------------------------------------------------------


def status(verdict: Verdict, subject: str) -> str:
    (found,) = (x.status for x in verdict.findings if x.subject == subject)
    return found


def test_a_small_run_fits_a_large_machine() -> None:
    verdict = judge(small(), machine())
    assert verdict.fits
    assert {finding.status for finding in verdict.findings} == {"ok"}


@pytest.mark.parametrize(
    ("subject", "changes", "expected"),
    [
        ("Python", {"python": (3, 10)}, "missing"),
        ("Python", {"python": (4, 0)}, "ok"),
        ("CPU cores", {"cores": 1}, "note"),
        ("free memory", {"memory_bytes": 10**9}, "missing"),
        ("free disk", {"disk_bytes": 10**6}, "missing"),
        ("free disk", {"disk_bytes": 200_000_000}, "note"),
        ("/dev/shm", {"shm_bytes": 0}, "note"),
        ("open files", {"open_files": 256}, "missing"),
        ("ports on loopback", {"ports": 2}, "missing"),
    ],
)
def test_what_a_machine_lacks_is_named(
    subject: str, changes: dict[str, Any], expected: str
) -> None:
    verdict = judge(small(), machine(**changes))
    assert status(verdict, subject) == expected
    others = [x for x in verdict.findings if x.subject != subject]
    assert {finding.status for finding in others} == {"ok"}
    assert verdict.fits == (expected != "missing")
    assert verdict.shape_fits


@pytest.mark.parametrize("package", WANTED)
def test_every_package_is_needed(package: str) -> None:
    there = machine().packages
    verdict = judge(small(), machine(packages={**there, package: None}))
    assert [finding.subject for finding in verdict.missing("machine")] == [package]
    other = judge(small(), machine(packages={**there, package: "0.0.1"}))
    assert status(other, package) == ("note" if WANTED[package] else "ok")
    assert other.fits


def test_a_local_build_is_the_same_version_but_cuda_needs_one_for_cuda() -> None:
    local = machine(packages={**machine().packages, "torch": "2.13.0+cpu"}, gpus=(H100, H100))
    assert status(judge(small(), local), "torch") == "ok"
    assert status(judge(small("real.device=cuda"), local), "torch") == "missing"
    for build in ("2.13.0", "2.13.0+cu130"):
        cuda = machine(packages={**machine().packages, "torch": build}, gpus=(H100, H100))
        assert judge(small("real.device=cuda"), cuda).fits


def test_gpus_and_what_runs_on_them() -> None:
    config = small("real.device=cuda", "real.server.count=3")
    assert judge(config, machine(gpus=(H100,) * 4)).fits
    few = judge(config, machine(gpus=(H100,) * 3))
    assert [finding.subject for finding in few.missing("machine")] == ["GPUs"]
    packages = {**machine().packages, "flash-attn": None}
    bare = judge(config, machine(gpus=(H100,) * 4, packages=packages))
    assert bare.fits
    [found] = [x for x in bare.findings if x.subject == "flash-attn"]
    assert found.status == "note"
    assert "slower" in found.wanted
    # On the CPU it is not even looked at.
    assert "flash-attn" not in {x.subject for x in judge(small(), machine()).findings}


def test_a_model_that_does_not_fit_a_gpu(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", hidden_size=4096, intermediate_size=12_288)
    overrides = ["real.device=cuda", f"real.model.path={model}"]
    config = small(*overrides, "real.server.kv_cache_tokens=200000")
    fine = judge(config, machine(gpus=(H100,) * 2))
    assert fine.fits
    small_gpu = Gpu(name="L4", memory_bytes=12 * 2**30, driver="1")
    tight = judge(config, machine(gpus=(H100, small_gpu)))
    assert {finding.subject for finding in tight.missing("machine")} == {
        "memory of a trainer process",
        "memory of a server process",
    }
    # What an unknown GPU cannot be held against is no reason to call the shape wrong.
    assert judge(config, machine()).shape_fits


def test_what_a_gpu_holds_of_the_kv_cache(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    text = SMALL.replace("kv_cache_tokens = 16_384", "")
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    config = load_config(tmp_path / "run.toml", ["real.device=cuda", f"real.model.path={model}"])
    weights = 4 * config.model_shape().parameters  # type: ignore[union-attr]
    token = 4 * 2 * 6 * 16
    for tokens, fits in ((96, True), (95, False)):
        # 0.8 of it is for weights and KV cache; the longest trajectory has 96 tokens.
        gpu = Gpu(name="x", memory_bytes=-int(-(weights + tokens * token) // 0.8), driver="1")
        verdict = judge(config, machine(gpus=(gpu, gpu)))
        assert (status(verdict, "memory of a server process") == "ok") == fits


def test_files_that_are_not_there(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    overrides = [
        *("real.task.name=prompts", f"real.task.file={tmp_path / 'a.jsonl'}"),
        f"real.model.path={model}",
    ]
    verdict = judge(small(*overrides), machine(bubblewrap=None))
    missing = [finding.subject for finding in verdict.missing("machine")]
    assert missing == ["real.task.file", "tokenizer"]
    assert status(verdict, "weights of the model") == status(verdict, "bubblewrap") == "note"
    for name in ("model/tokenizer.json", "model/model.safetensors", "a.jsonl"):
        (tmp_path / name).touch()
    there = judge(small(*overrides), machine())
    assert {finding.status for finding in there.findings} == {"ok"}


def test_a_model_that_is_not_there_leaves_the_shape_open(tmp_path: Path) -> None:
    verdict = judge(small(f"real.model.path={tmp_path / 'nowhere'}"), machine())
    assert [finding.subject for finding in verdict.missing("shape")] == ["model"]
    assert not verdict.fits


def test_the_wanted_versions_are_those_of_the_installation() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["optional-dependencies"]["real"]
    sglang = (ROOT / "requirements-sglang.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)", "\n".join([*extra, *sglang]), re.MULTILINE))
    named = {re.split(r"[<>=\[]", line)[0] for line in [*extra, *sglang]}
    assert WANTED.keys() <= named
    assert {name: version for name, version in WANTED.items() if version} == {
        name: pinned[name] for name in WANTED if name in pinned
    }


# ---- looking ------------------------------------------------------------------------------------

SMI = """\
GPU-5d1a, NVIDIA H100 80GB HBM3, 81559, 580.1
GPU-77b0, NVIDIA L4, 23034, 580.1
Unable to determine the device handle for GPU0000: Unknown Error
GPU-99, broken, [N/A], 580.1
"""


def test_gpus_are_read_from_nvidia_smi() -> None:
    (first, h100), (second, l4) = parse_gpus(SMI)
    assert (first, h100) == ("GPU-5d1a", H100)
    assert (second, l4.name, l4.memory_bytes) == ("GPU-77b0", "NVIDIA L4", 23034 * 2**20)
    assert parse_gpus("") == []


@pytest.mark.parametrize(
    ("variable", "names"),
    [
        (None, ["a", "b", "c"]),
        ("", []),
        ("2,0", ["c", "a"]),
        (" 1 ", ["b"]),
        ("0,7,1", ["a"]),
        ("-1", []),
        ("GPU-2", ["b"]),
        ("GPU-3,GPU-1", ["c", "a"]),
        ("GPU", []),
        ("MIG-x", []),
    ],
)
def test_cuda_visible_devices_chooses(variable: str | None, names: list[str]) -> None:
    gpus = [
        (f"GPU-{number}", Gpu(name=name, memory_bytes=1, driver="1"))
        for number, name in enumerate("abc", start=1)
    ]
    assert [gpu.name for gpu in visible(gpus, variable)] == names


def test_this_machine_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(f"#!/bin/sh\ncat <<'END'\n{SMI}END\n", encoding="utf-8")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("HERE", "x")
    monkeypatch.setenv("EMPTY", "")
    found = look(
        tmp_path / "a" / "b",
        ["pytest", "no-such-package"],
        host="127.0.0.1",
        ports=3,
    )
    assert found.python == sys.version_info[:2]
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.disk_folder == tmp_path
    assert min(found.memory_bytes, found.disk_bytes, found.open_files) > 0
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA L4"]
    assert found.packages == {"pytest": pytest.__version__, "no-such-package": None}
    assert found.ports == 3
    smi.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
    assert look(tmp_path, [], host="127.0.0.1", ports=0).gpus == ()


def test_ports_are_opened_at_once_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_ports("127.0.0.1", 5) == 5
    # An address of a documentation network (RFC 5737) belongs to no machine.
    assert free_ports("192.0.2.1", 5) == 0
    bind = socket.socket.bind
    bound: list[object] = []

    def two_ports(one: socket.socket, address: Any) -> None:
        if len(bound) == 2:
            raise OSError("no more")
        bound.append(one)
        bind(one, address)

    monkeypatch.setattr(socket.socket, "bind", two_ports)
    assert free_ports("127.0.0.1", 5) == 2
    assert all(one.fileno() == -1 for one in bound)  # type: ignore[attr-defined]


# ---- the command --------------------------------------------------------------------------------

Command = Callable[..., int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command on a made-up machine."""

    def carry_out(*arguments: str, **changes: object) -> int:
        monkeypatch.setattr("areal_real.machine.look", lambda *_, **__: machine(**changes))
        monkeypatch.setenv("COLUMNS", "200")
        parser = argparse.ArgumentParser()
        check.add(parser.add_subparsers())
        args = parser.parse_args(["check", *arguments])
        return int(args.run(args))

    return carry_out


def test_without_a_configuration_the_tiny_run_decides(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == 0
    text = capsys.readouterr().out
    assert "This machine" in text
    assert re.search(r"tiny-cpu +│ yes", text)
    assert re.search(r"gpu-1node +│ no  │ .*GPUs: 0 of 8", text)
    assert text.endswith("tiny-cpu can run here.\n")
    assert command(memory_bytes=10**9) == 1
    assert capsys.readouterr().out.endswith("It cannot run here; missing: free memory.\n")


def test_the_paper_run_has_the_right_shape_and_lacks_128_gpus(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    paper = str(READY / "paper-1.5b.toml")
    assert command(paper) == 1
    text = capsys.readouterr().out
    assert "The shape of paper-1.5b is right. It cannot run here; missing: " in text
    assert "GPUs: 0 of 128, nodes: 1 of 16" in text
    assert "512 prompts x 16 = 8192" in text
    assert command(paper, "--shape-only") == 0


def test_json_says_the_same(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(str(READY / "gpu-1node.toml"), "--json", gpus=(H100,) * 8) == 1
    result = json.loads(capsys.readouterr().out)
    missing = [x["subject"] for x in result["findings"] if x["status"] == "missing"]
    assert missing == ["real.task.file", "tokenizer"]
    assert (result["fits"], result["shape_fits"], result["needs"]["gpus"]) == (False, True, 8)
    assert command("--json") == 0
    ready = json.loads(capsys.readouterr().out)["ready"]
    assert ready["tiny-cpu"] == {"fits": True, "missing": []}
    assert "GPUs" in ready["paper-1.5b"]["missing"]


def test_a_model_that_is_not_there_has_no_right_shape(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tiny = str(READY / "tiny-cpu.toml")
    assert command(tiny, "--set", f"real.model.path={tmp_path}", "--shape-only") == 1
    assert capsys.readouterr().out.endswith("tiny-cpu cannot run anywhere as it is: model.\n")


def test_a_wrong_configuration_is_an_error(command: Command) -> None:
    with pytest.raises(ConfigError, match="minibatches = 3"):
        command(str(READY / "tiny-cpu.toml"), "--set", "real.trainer.minibatches=3")
    with pytest.raises(ConfigError, match="cannot be read"):
        command("nowhere.toml")


def test_checking_loads_no_back_end() -> None:
    script = """
import argparse, sys
from areal_real.commands import check
parser = argparse.ArgumentParser()
check.add(parser.add_subparsers())
args = parser.parse_args(["check", "--json"])
args.run(args)
heavy = {"aiohttp", "math_verify", "megatron", "numpy", "pandas", "sglang", "torch", "transformers"}
print(sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        env=clean_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == "[]\n"
    assert set(json.loads(result.stdout)["ready"]) == {path.stem for path in READY.glob("*.toml")}
