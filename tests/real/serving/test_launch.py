"""Processes, ports, options and command lines, without SGLang."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from areal_real.serving import launch
from areal_real.serving.command import command_line, environment, hand_over_token
from areal_real.serving.errors import ServerStartFailed
from areal_real.serving.guard import TOKEN_FILE_VARIABLE
from areal_real.serving.launch import ServerProcess, start_server
from areal_real.serving.options import Sampling, ServerOptions
from areal_real.serving.ports import FIRST_PORT, LAST_PORT, PortLease
from areal_real.serving.spans import SpanLog
from areal_sched.errors import ConfigError
from areal_sched.measurements import ServerSpan
from tests.real.serving.processes import group, wait_for


def interpreter(folder: Path, script: str) -> str:
    """A program that is started in the place of Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


def start(options: ServerOptions, folder: Path) -> ServerProcess:
    return asyncio.run(start_server(options, folder, weight_version=0, log=folder / "log"))


def process(folder: Path, script: str) -> ServerProcess:
    options = ServerOptions(python=interpreter(folder, script), stop_grace_s=0.3)
    log = folder / "log"
    return ServerProcess(options, folder, weight_version=0, log=log, gpus=None)


# ---- starting and stopping ---------------------------------------------------------------------


def test_a_server_that_ends_at_once_shows_its_log(tmp_path: Path) -> None:
    script = "for n in $(seq 40); do echo line $n; done; echo the reason >&2; exit 3"
    options = ServerOptions(python=interpreter(tmp_path, script))
    with pytest.raises(ServerStartFailed) as failed:
        start(options, tmp_path)
    text = str(failed.value)
    assert "exited with status 3" in text
    assert str(tmp_path / "log") in text
    assert text.endswith("line 40\nthe reason")
    assert "line 16\n" not in text


def test_a_server_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "sleep 60")
    before = set(launch._living)
    with pytest.raises(ServerStartFailed, match=r"start_timeout_s = 0\.3"):
        start(ServerOptions(python=python, start_timeout_s=0.3), tmp_path)
    assert launch._living == before


def test_no_interpreter(tmp_path: Path) -> None:
    with pytest.raises(ServerStartFailed, match="cannot run /nowhere/python"):
        start(ServerOptions(python="/nowhere/python"), tmp_path)


def test_a_port_taken_meanwhile_is_not_the_end(tmp_path: Path) -> None:
    script = "echo start; echo OSError: Address already in use; exit 1"
    with pytest.raises(ServerStartFailed):
        start(ServerOptions(python=interpreter(tmp_path, script)), tmp_path)
    assert (tmp_path / "log").read_text().count("start") == 3


def test_who_has_taken_the_port_is_not_told_the_token(tmp_path: Path) -> None:
    """Another user of the machine may listen there, between the choice of the port and its use."""
    options = ServerOptions(python=interpreter(tmp_path, "sleep 60"), start_timeout_s=2)
    server = ServerProcess(options, tmp_path, weight_version=0, log=tmp_path / "log", gpus=None)
    told: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append(await reader.read(1000))
        writer.close()

    async def work() -> None:
        port = int(server.url.rpartition(":")[2])
        async with await asyncio.start_server(hear, "127.0.0.1", port):
            with pytest.raises(ServerStartFailed, match="was not ready"):
                await server.wait_until_ready()

    try:
        asyncio.run(work())
    finally:
        server.kill()
    assert not told


OPEN = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(STATUS)
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_POST = do_GET
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def test_a_server_that_answers_everyone_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "open.py").write_text(OPEN.replace("STATUS", "200"))
    script = f'exec {sys.executable} {tmp_path / "open.py"} "$@"'
    with pytest.raises(ServerStartFailed, match="the server answers who shows no token"):
        start(ServerOptions(python=interpreter(tmp_path, script)), tmp_path)


def test_stop_ends_the_whole_group_even_a_stubborn_one(tmp_path: Path) -> None:
    server = process(tmp_path, "trap '' TERM; sleep 60 & echo ready; wait; wait; sleep 60")
    wait_for(lambda: "ready" in server.log_tail())
    assert server.alive
    assert server.ending == "is running"
    asyncio.run(server.stop())
    assert not server.alive
    assert server.ending == "was killed by signal 9"
    wait_for(lambda: not group(server.pid))
    asyncio.run(server.stop())  # again


def test_stop_leaves_nothing_behind_and_does_not_wait_for_nothing(tmp_path: Path) -> None:
    server = process(tmp_path, "echo $TMPDIR; exec sleep 60")
    wait_for(lambda: "areal-sgl" in server.log_tail())
    folder = Path(server.log_tail())
    assert folder.is_dir()
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0
    asyncio.run(server.stop())
    assert server.ending == "was killed by signal 15"
    assert not folder.exists()


def test_stop_that_is_cancelled_kills(tmp_path: Path) -> None:
    server = process(tmp_path, "trap '' TERM; echo ready; while true; do sleep 1; done")
    wait_for(lambda: "ready" in server.log_tail())

    async def work() -> None:
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0.1)
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)

    asyncio.run(work())
    assert server.ending == "was killed by signal 9"


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_servers_end_with_the_interpreter(tmp_path: Path, end: str) -> None:
    """At its exit, and also where it gets no chance."""
    # Called as "python -I die_with_parent.py PID ...": does that, and then only sleeps.
    python = interpreter(tmp_path, f'exec {sys.executable} "$1" "$2" "$3" /bin/sleep 60')
    program = tmp_path / "program.py"
    program.write_text(f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).resolve().parents[3])!r})
from areal_real.serving.launch import ServerProcess
from areal_real.serving.options import ServerOptions
folder = Path({str(tmp_path)!r})
options = ServerOptions(python={python!r})
server = ServerProcess(options, folder, weight_version=0, log=folder / "log", gpus=None)
print(server.pid, flush=True)
sys.stdin.readline()
if {end!r} == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
""")
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        leader = int(user.stdout.readline())
        wait_for(lambda: "sleep" in Path(f"/proc/{leader}/cmdline").read_text())
        user.communicate("\n")
    wait_for(lambda: not group(leader))


def test_what_a_killed_parent_left_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch.tempfile, "gettempdir", lambda: str(tmp_path))
    folders = [tmp_path / f"areal-sgl-{name}" for name in ("dead", "living", "new")]
    for folder in folders:
        folder.mkdir()
        (folder / "shared-memory").write_text(f"{tmp_path}/not-of-sglang")
    (tmp_path / "not-of-sglang").touch()
    (folders[0] / "lock").touch()
    with (folders[1] / "lock").open("w") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        launch._sweep()
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert (tmp_path / "not-of-sglang").exists()


def test_a_server_whose_parent_is_gone_already_does_not_start() -> None:
    guard = Path(launch.__file__).with_name("die_with_parent.py")
    command = [sys.executable, "-I", str(guard), "1", "/bin/echo", "started"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "parent died" in done.stderr
    assert not done.stdout


# ---- ports -------------------------------------------------------------------------------------


def test_a_leased_port_is_given_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    first = PortLease("127.0.0.1")
    assert FIRST_PORT <= first.port <= LAST_PORT
    for name in ("FIRST_PORT", "LAST_PORT"):
        monkeypatch.setattr(f"areal_real.serving.ports.{name}", first.port)
    with pytest.raises(ServerStartFailed, match="no free port"):
        PortLease("127.0.0.1")
    first.release()
    first.release()
    again = PortLease("127.0.0.1")
    assert again.port == first.port
    again.release()
    with socket.create_server(("127.0.0.1", first.port)), pytest.raises(ServerStartFailed):
        PortLease("127.0.0.1")


# ---- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"device": "tpu"}, "device = 'tpu'"),
        ({"dtype": "int8"}, "dtype = 'int8'"),
        ({"tensor_parallel": 0}, "tensor_parallel = 0"),
        ({"max_running_rollouts": 0}, "max_running_rollouts = 0"),
        ({"kv_cache_tokens": None}, "kv_cache_tokens must be given"),
        ({"kv_cache_tokens": 0}, "kv_cache_tokens = 0"),
        ({"stream_interval_tokens": -1}, "stream_interval_tokens"),
        ({"start_timeout_s": 0}, "start_timeout_s"),
        ({"api_token": ""}, "api_token: expected printable"),
        ({"api_token": "two words"}, "api_token: expected printable"),
        ({"api_token": "line\n"}, "api_token: expected printable"),
    ],
)
def test_wrong_options(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        replace(ServerOptions(), **wrong)


def test_every_server_has_a_token_of_its_own() -> None:
    options = ServerOptions(api_token="secret")
    assert "secret" not in repr(options)
    assert len({ServerOptions().api_token for _ in range(3)}) == 3


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}])
def test_wrong_sampling(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_a_token_is_on_no_command_line_and_in_no_environment(tmp_path: Path) -> None:
    options = ServerOptions(host="0.0.0.0", api_token='se"cret', extra_args=("--last", "1"))
    command = command_line(options, tmp_path, weight_version=3, port=1, folder=tmp_path)
    assert "cret" not in " ".join([*command, *environment(options, tmp_path).values()])
    hand_over_token(options, tmp_path)
    secret = Path(environment(options, tmp_path)[TOKEN_FILE_VARIABLE])
    assert secret.read_text() == 'se"cret'
    assert secret.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        hand_over_token(options, tmp_path)
    assert command[-2:] == ["--last", "1"]
    assert command[command.index("--weight-version") + 1] == "3"


def test_interfaces_are_those_of_the_environment_but_for_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for the trainer, which is in a process group with the server."""
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib7")
    assert environment(ServerOptions(), tmp_path)["NCCL_SOCKET_IFNAME"] == "lo"
    reached = ServerOptions(host="192.0.2.1")
    assert environment(reached, tmp_path)["NCCL_SOCKET_IFNAME"] == "ib7"


def test_devices_differ_in_launcher_and_flags(tmp_path: Path) -> None:
    cpu = ServerOptions(threads=3, prefix_cache=False)
    command = command_line(cpu, tmp_path, weight_version=0, port=1, folder=tmp_path)
    assert any(word.endswith("cpu_launcher.py") for word in command)
    assert {"--device", "torch_native", "--disable-radix-cache"} <= set(command)
    told = environment(cpu, tmp_path)
    assert told["SGLANG_USE_CPU_ENGINE"] == "1"
    assert told["OMP_NUM_THREADS"] == "3"
    assert told["GLOO_SOCKET_IFNAME"] == "lo"
    gpu = ServerOptions(device="cuda", dtype="bfloat16", kv_cache_tokens=None, tensor_parallel=2)
    command = command_line(gpu, tmp_path, weight_version=0, port=1, folder=tmp_path)
    assert any(word.endswith("gpu_launcher.py") for word in command)
    assert not {"--max-total-tokens", "torch_native", "--disable-radix-cache"} & set(command)
    assert command[command.index("--tp-size") + 1] == "2"
    told = environment(gpu, tmp_path, gpus=("2", "3"))
    assert told["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert "SGLANG_USE_CPU_ENGINE" not in set(told) - set(os.environ)


# ---- spans -------------------------------------------------------------------------------------


def test_spans_count_what_comes_late_in_the_next_generation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000]
    monkeypatch.setattr("areal_real.serving.spans.time.monotonic_ns", lambda: now[0])
    spans: list[ServerSpan] = []
    log = SpanLog(1, spans.append)
    log.be("generate")  # before the run: nobody wants to know
    log.be("idle")
    log.begin(900, 50)
    for at, activity, tokens in ((1100, "generate", 5), (1200, "load", 3), (1300, "generate", 2)):
        now[0] = at
        log.be(activity)
        log.be(activity)
        log.generated(tokens)
    log.recomputed(7)
    log.close(500)
    log.close(600)
    now[0] = 2000
    log.be("down")
    told = [(x.activity, x.start_ns, x.end_ns, x.generated_tokens) for x in spans]
    assert told == [
        ("idle", 50, 200, 0),
        ("generate", 200, 300, 5),
        ("load", 300, 400, 0),
        ("generate", 400, 500, 5),
    ]
    assert [x.recomputed_tokens for x in spans] == [0, 0, 0, 7]
