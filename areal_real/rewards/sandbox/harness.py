"""Runs inside the sandbox, before and around the program of the model. Standard library only.

Called as ``python harness.py FORM STARTED UID THREADS CPU MEMORY FILE [FN_NAME CASE_CPU]``. It
lowers every limit, gives up root where it has it, tells through the file descriptor STARTED that
the sandbox stands, closes that, and only then reads and runs ``/answer.py``:

- form ``program``: as a main program; standard input and output are the test's.
- form ``calls``: standard input holds a JSON list of argument lists; for each one a line of JSON,
  the function's result, goes to standard output. The program's own prints go nowhere.

Nothing here is a secret or a verdict. The program may rewrite all of it, and still only says what
it claims the results to be: they are compared outside.
"""

import os
import resource
import sys

# What solutions of judges for single functions take for granted.
PRELUDE = """
from typing import *
import bisect, collections, copy, functools, heapq, itertools, math, operator, re, string
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import ceil, comb, factorial, floor, gcd, inf, isqrt, lcm, log, log2, pi, prod, sqrt
"""
PRELUDE_RECURSION = 50_000  # LiveCodeBench's judge


def confine(
    started_fd: int, uid: int, threads: int, cpu_s: int, memory_bytes: int, file_bytes: int
) -> None:
    """Lower the limits for good and become an ordinary user.

    Args:
        started_fd: where to tell that this is done.
        uid: user and group to become; 0 where this already is an ordinary user.
        threads: tasks at a time.
        cpu_s: processor seconds in all.
        memory_bytes: address space.
        file_bytes: size of any file, the output included.
    """
    for what, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 256),
        (resource.RLIMIT_NPROC, threads),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_STACK, 64 << 20),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
    ):
        # One second of grace between the signal for too much CPU time and the kill.
        hard = limit + 1 if what == resource.RLIMIT_CPU else limit
        resource.setrlimit(what, (limit, hard))
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    os.write(started_fd, b"1")
    os.close(started_fd)


def run_program(source: str) -> None:
    """Run the answer as Python would run the file."""
    import __main__

    scope = __main__.__dict__
    for name in [name for name in scope if not name.startswith("__")]:
        del scope[name]
    exec(compile(source, "answer.py", "exec"), scope)


def run_calls(source: str, fn_name: str, case_cpu_s: float) -> None:
    """Call the answer's function, or the method of its class ``Solution``, once per case."""
    import json
    import signal

    cases = json.loads(sys.stdin.read())
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open("/dev/null", os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    sys.setrecursionlimit(PRELUDE_RECURSION)
    scope: dict[str, object] = {"__name__": "answer"}
    exec(PRELUDE, scope)
    signal.setitimer(signal.ITIMER_PROF, case_cpu_s)
    exec(compile(source, "answer.py", "exec"), scope)
    for arguments in cases:
        signal.setitimer(signal.ITIMER_PROF, case_cpu_s)
        function = scope.get(fn_name)
        if function is None:
            function = getattr(scope["Solution"](), fn_name)  # type: ignore[operator]
        result = function(*arguments)  # type: ignore[operator]
        results.write(json.dumps(result) + "\n")
        results.flush()


def main() -> None:
    """Confine, then run."""
    import builtins

    form, *limits = sys.argv[1:8]
    rest = sys.argv[8:]
    confine(*map(int, limits))
    sys.argv[:] = ["answer.py"]
    for name in ("exit", "quit"):  # what the module `site`, not loaded here, adds
        setattr(builtins, name, sys.exit)
    with open("/answer.py", encoding="utf-8") as file:
        source = file.read()
    if form == "program":
        run_program(source)
    else:
        run_calls(source, rest[0], float(rest[1]))


if __name__ == "__main__":
    main()
