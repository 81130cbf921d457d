"""Programs that try to get out, to stay, to take everything, or to seem right when they are not.

Each runs in the real sandbox. `broken` is what the program prints when its attack has worked.
"""

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from areal_real.rewards.code import Case, Suite, Verdict, judge
from areal_real.rewards.sandbox.box import Limits, Outcome, Sandbox

LIMITS = Limits(cpu_s=10, wall_s=60, memory_bytes=256 << 20)
SHORT = replace(LIMITS, wall_s=1.0)

REFUSED = {
    "fork": "import os\nos.fork()",
    "posix_spawn": "import os, sys\nos.posix_spawn(sys.executable, ['python3'], {})",
    "subprocess": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''], check=True)",
    "clone": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.syscall(56, 17, 0, 0, 0, 0) < 0: raise OSError(ctypes.get_errno(), 'clone')"
    ),
    "clone3": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17)\n"
        "if libc.syscall(435, arguments, 88) < 0: raise OSError(ctypes.get_errno(), 'clone3')"
    ),
    "passwd": "open('/etc/passwd').read()",
    "shadow through a link": "import os\nos.symlink('/etc/shadow', 'a')\nopen('a').read()",
    "a folder above": "import os\nos.listdir('../home')",
    "processes": "import os\nos.listdir('/proc')",
    "memory of others": "open('/proc/1/mem', 'rb')",
    "site-packages": "import pytest",
    "write to the root": "open('/written', 'w')",
    "write over the harness": "open('/harness.py', 'a')",
    "write over the answer": "open('/answer.py', 'a')",
    "write over Python": "import os\nopen(os.__file__, 'a')",
    "write over Python through a link": (
        "import os\nos.symlink(os.__file__, 'a')\nopen('a', 'a').write('x')"
    ),
    "chmod of a device": "import os\nos.chmod('/dev/null', 0)",
    "loopback": "import socket\nsocket.create_connection(('127.0.0.1', 22), 1)",
    "unix socket": "import socket\nsocket.socket(socket.AF_UNIX).connect('/run/x')",
    "netlink socket": "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "listen": "import socket\nsocket.create_server(('127.0.0.1', 0))",
    "memory file": "import os\nos.memfd_create('a')",
    "root again": "import os\nos.setuid(0)",
    "more memory": (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"
    ),
    "more processor time": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
    "mount": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.mount(b'a', b'/box', b'tmpfs', 0, None): raise OSError(ctypes.get_errno(), 'a')"
    ),
    "new user namespace": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.unshare(0x10000000): raise OSError(ctypes.get_errno(), 'a')"
    ),
    "trace": (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.ptrace(16, 1, 0, 0) < 0: raise OSError(ctypes.get_errno(), 'a')"
    ),
    "shared memory": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.shmget(0, 1 << 20, 0o1600) < 0: raise OSError(ctypes.get_errno(), 'a')"
    ),
    "huge file": "f = open('a', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "full folder": (
        "import itertools\nfor i in itertools.count():\n  open(str(i), 'wb').write(bytes(8 << 20))"
    ),
    "many files open": "files = [open('/dev/null') for i in range(1000)]",
    "stack": "def f(): f()\nf()",
    "nesting": "eval('(' * 100000)",
}


def run(sandbox: Sandbox, source: str, limits: Limits = LIMITS) -> Outcome:
    return sandbox.run_program(source, b"", limits)


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused(sandbox: Sandbox, name: str) -> None:
    outcome = run(sandbox, f"{REFUSED[name]}\nprint('broken')")

    assert b"broken" not in outcome.stdout
    assert outcome.ending == "error"
    assert "Error" in outcome.error


def test_the_same_acts_are_possible_where_they_are_harmless(sandbox: Sandbox) -> None:
    """So that the refusals above do not come from a sandbox in which nothing works."""
    source = """
import asyncio, os, socket, tempfile, threading
done = []
thread = threading.Thread(target=lambda: done.append(1)); thread.start(); thread.join()
with tempfile.TemporaryFile() as file: file.write(b"x" * 1000)
open("a", "w").write("text"); os.symlink("a", "b"); assert open("b").read() == "text"
a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
asyncio.run(asyncio.sleep(0)); open("/dev/null", "w").write("x"); os.urandom(4)
x = bytearray(64 << 20)
import sys; sys.setrecursionlimit(10**6)
def depth(n): return n and 1 + depth(n - 1)
assert depth(50000) == 50000
print(done, os.getcwd(), sorted(os.listdir("/")), *sys.argv)
"""
    outcome = run(sandbox, source)

    assert outcome.error == ""
    assert outcome.stdout.decode() == (
        "[1] /box ['answer.py', 'box', 'dev', 'harness.py', 'lib64', 'python'] answer.py\n"
    )


def test_no_secret_lies_about(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right answer stands in no file, variable, frame or object that can be reached."""
    monkeypatch.setenv("SECRET", "secret-472913")
    search = r"""
import gc, os, re, sys
def look(text):
    for found in re.findall(r"secret-\d{6}", text): print(found); raise SystemExit
def sources():
    yield str(dict(os.environ)); yield str(sys.argv); yield str(sys.orig_argv)
    frame = sys._getframe()
    while frame: yield str(frame.f_locals) + str(frame.f_globals); frame = frame.f_back
    for thing in gc.get_objects():
        try: yield str(thing)
        except Exception: pass
    for folder in set(os.listdir("/")) - {"python"}:
        for base, _, names in os.walk("/" + folder):
            for name in names:
                if name in ("zero", "random", "urandom"): continue
                try: yield open(os.path.join(base, name), errors="replace").read()
                except OSError: pass
    for name in ("/harness.py", "/answer.py"): yield open(name).read()
    for fd in range(3, 64):
        try: os.lseek(fd, 0, 0); yield os.read(fd, 1 << 20).decode(errors="replace")
        except OSError: pass
list(map(look, sources()))
def f(): list(map(look, sources()))
print("nothing")
"""
    stdin = judge(sandbox, Suite((Case("", "secret-472913\n"),)), search, LIMITS)
    calls = judge(sandbox, Suite((Case([], "secret-472913"),), "f"), search, LIMITS)

    assert stdin == Verdict(False, 0, "wrong output")
    assert not calls.passed
    found = run(sandbox, search).stdout
    assert found == b"nothing\n"
    # The search does find what is there to be found.
    control = search.replace(
        'print("nothing")', 'open("a", "w").write("secret-" + "123456")\nlist(map(look, sources()))'
    )
    assert run(sandbox, control).stdout == b"secret-123456\n"


def test_only_three_files_are_open(sandbox: Sandbox) -> None:
    source = """
import os
for fd in range(64):
    try: os.fstat(fd)
    except OSError: continue
    print(fd, end=" ")
"""
    assert run(sandbox, source).stdout == b"0 1 2 "


ENDLESS = {
    "loop": "while True: pass",
    "loop in C": "10 ** 10 ** 10",
    "sleep": "import time\nwhile True: time.sleep(99)",
    "deaf to every signal": (
        "import signal, time\n"
        "for s in signal.valid_signals() - {9, 19}: signal.signal(s, signal.SIG_IGN)\n"
        "while True: time.sleep(99)"
    ),
    "busy and deaf": (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    ),
    "stopped": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "threads that do not end": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()"
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_runs_out_of_time(sandbox: Sandbox, name: str) -> None:
    """And leaves neither a process nor a zombie behind."""
    before = psutil.Process().children(recursive=True)  # Python's own, of other tests
    outcome = run(sandbox, ENDLESS[name], SHORT)

    assert outcome.ending == "wall"
    assert set(psutil.Process().children(recursive=True)) <= set(before)


def test_processor_time_is_limited_too(sandbox: Sandbox) -> None:
    outcome = run(sandbox, ENDLESS["loop"], replace(LIMITS, cpu_s=1))

    assert outcome.ending == "cpu"


def test_deafness_to_the_processor_limit_gains_one_second(sandbox: Sandbox) -> None:
    outcome = run(sandbox, ENDLESS["busy and deaf"], replace(LIMITS, cpu_s=1))

    assert outcome.ending == "killed"


EXCESSIVE = {
    "memory": ("x = []\nwhile True: x.append(bytearray(1 << 24))", "error"),
    "one big block": ("x = bytearray(1 << 40)", "error"),
    "output": ("while True: print('x' * 100000)", "output"),
    "errors": ("import sys\nwhile True: sys.stderr.write('x' * 100000)", "error"),
    "stack of C": (
        "import ctypes\ncallback = ctypes.CFUNCTYPE(None)(lambda: callback())\n"
        "import sys\nsys.setrecursionlimit(10**9)\ncallback()",
        "killed",
    ),
    "threads": (
        "import threading, time\nthreading.stack_size(1 << 24)\n"
        "while True: threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
        "error",
    ),
    "kills itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "killed"),
}


@pytest.mark.parametrize("name", EXCESSIVE)
def test_asks_for_too_much(sandbox: Sandbox, name: str) -> None:
    source, ending = EXCESSIVE[name]
    outcome = run(sandbox, f"{source}\nprint('broken')")

    assert outcome.ending == ending, outcome.error
    assert b"broken" not in outcome.stdout
    assert len(outcome.stdout) <= LIMITS.file_bytes


def test_threads_are_counted(sandbox: Sandbox) -> None:
    if sandbox.mode == "user" and os.geteuid() == 0:
        pytest.skip("the kernel does not count the tasks of root, who runs this user namespace")
    source = """
import threading, time
threading.stack_size(32768)
try:
    for n in range(1000): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()
finally:
    print(n, flush=True)
"""
    outcome = run(sandbox, source)

    assert 0 < int(outcome.stdout) < LIMITS.threads


def test_the_temporary_folder_is_empty_again(sandbox: Sandbox) -> None:
    assert run(sandbox, "open('left', 'w').write('x')").ending == "done"
    assert run(sandbox, "import os\nprint(os.listdir())").stdout == b"[]\n"


def test_killing_the_parent_ends_only_the_sandbox(sandbox: Sandbox) -> None:
    """Process 1 there is the sandbox's own; nobody outside has a number inside."""
    source = """
import os, signal
for pid in (1, os.getppid(), -1, 0):
    try: os.kill(pid, signal.SIGKILL)
    except OSError: pass
print("broken")
"""
    verdict = judge(sandbox, Suite((Case("", "right"),)), source, LIMITS)

    assert not verdict.passed
    assert psutil.Process().is_running()
    assert run(sandbox, "print(1)").stdout == b"1\n"


FORGERIES = {
    "claims success": "print('passed')\nprint(True)\nprint(1.0)",
    "leaves early": "import os\nos._exit(0)",
    "leaves with a status": "raise SystemExit(0)",
    "writes to every file": (
        "import os\nfor fd in range(64):\n  try: os.write(fd, b'true\\n{\"reward\": 1.0}\\n')\n"
        "  except OSError: pass"
    ),
    "equals everything": (
        "class Equal:\n  def __eq__(self, other): return True\n  def __str__(self): return ''\n"
        "def add(a, b): return Equal()"
    ),
    "a string that equals everything": (
        "class Equal(str):\n  def __eq__(self, other): return True\n  __hash__ = None\n"
        "def add(a, b): return Equal('x')"
    ),
    "patches json": (
        "import json\njson.dumps = lambda *a, **k: 'true'\n"
        "json.loads = lambda *a, **k: [[0, 0]]\ndef add(a, b): return 0"
    ),
    "patches the harness": (
        "import sys, __main__\nfor name in list(vars(__main__)):\n"
        "  if callable(vars(__main__)[name]): setattr(__main__, name, lambda *a, **k: True)\n"
        "def add(a, b): return True"
    ),
    "rewrites its results": (
        "import os\ndef add(a, b):\n  for fd in range(3, 64):\n"
        "    try: os.ftruncate(fd, 0); os.write(fd, b'true\\n' * 3); os._exit(0)\n"
        "    except OSError: pass"
    ),
    "answers too often": (
        "import os\ndef add(a, b):\n  for fd in range(3, 64):\n"
        "    try: os.write(fd, b''.join(b'%d\\n' % n for n in range(9)))\n"
        "    except OSError: pass\n  return a + b"
    ),
    "breaks the reader": (
        "import os\ndef add(a, b):\n  for fd in range(3, 64):\n"
        "    try: os.write(fd, b'[' * 100000 + b'\\n' + b'9' * 100000 + b'\\n\\xff\\n')\n"
        "    except OSError: pass\n  os._exit(0)"
    ),
    "not a number": "def add(a, b): return float('nan')",
    "not JSON": "def add(a, b): return {1, 2}",
    "no function": "x = 1",
    "not Python": "Sorry, I cannot.",
    "null byte": "def add(a, b):\n  return a + b\n\0",
    "raises": "def add(a, b): raise KeyboardInterrupt",
}
CALLS = Suite((Case([1, 2], 3), Case([5, 5], 10), Case([-1, 1], 0)), "add")
PROGRAM = Suite((Case("1 2\n", "3\n"),))


@pytest.mark.parametrize("name", FORGERIES)
@pytest.mark.parametrize("tests", [CALLS, PROGRAM], ids=["calls", "program"])
def test_a_verdict_cannot_be_forged(sandbox: Sandbox, tests: Suite, name: str) -> None:
    assert not judge(sandbox, tests, FORGERIES[name], LIMITS).passed


def test_the_right_answers_pass(sandbox: Sandbox) -> None:
    assert judge(sandbox, CALLS, "def add(a, b): return a + b", LIMITS).passed
    assert judge(sandbox, PROGRAM, "print(sum(map(int, input().split())))", LIMITS).passed


def test_writing_outside_leaves_no_trace(sandbox: Sandbox) -> None:
    marker = f"areal-escape-{time.monotonic_ns()}"
    for folder in (tempfile.gettempdir(), "/dev", "/dev/shm", "/", str(Path.cwd())):
        run(sandbox, f"open({f'{folder}/{marker}'!r}, 'w')")
        assert not Path(folder, marker).exists()
