"""A reward worker: ``python -m areal_real.rewards.worker MEMORY_BYTES``, started by the pool.

One JSON object a line, in and out, one answer at a time. A job is
``{"kind", "reference", "answer", "timeout_s"}``. The worker loads what it needs, answers
``{"begun": true}`` and then judges: what goes wrong before that line is never the answer's fault.
Then comes ``{"reward": 1.0}`` or ``{"failed": reason, "of_answer": false}``.

Programs of a model never run in this process, only in sandboxes below it. There is no time-out
here: the pool kills a worker that takes too long, and the kernel kills its sandboxes with it.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

Judge = Callable[[str, str, float], float]


@functools.cache
def load(kind: str) -> Judge:
    """The judge of a kind of problem: (reference, answer, timeout_s) to reward.

    Raises:
        ImportError: a library is not installed.
        BackendError: programs cannot be confined here.
        ValueError: there is no such kind.
    """
    if kind == "exact":
        from areal_real.rewards import exact

        return lambda reference, answer, timeout_s: exact.score(reference, answer)
    if kind == "math":
        from areal_real.rewards import math_answer

        return lambda reference, answer, timeout_s: math_answer.score(reference, answer)
    if kind == "code":
        from areal_real.rewards import code
        from areal_real.rewards.sandbox import box

        return functools.partial(code.score, box.prepare())
    raise ValueError(f"there is no judge for problems of kind {kind!r}")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def work(job: dict[str, Any], begun: Callable[[], None]) -> dict[str, Any]:
    """Judge one answer.

    Args:
        job: see the head of this module.
        begun: called when everything is loaded.

    Returns:
        The reply.
    """
    try:
        judge = load(job["kind"])
    except Exception as exc:
        return {"failed": f"cannot judge {job['kind']!r}: {_words(exc)}", "of_answer": False}
    begun()
    try:
        return {"reward": judge(job["reference"], job["answer"], job["timeout_s"])}
    except (MemoryError, RecursionError) as exc:
        return {"failed": f"the answer is too large to judge: {_words(exc)}", "of_answer": True}
    except Exception as exc:
        return {"failed": _words(exc), "of_answer": False}


def main() -> None:
    """Judge until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Soft only: sandboxes set limits of their own.
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), hard))
    # A library that prints must not garble the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(reply: dict[str, Any]) -> None:
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()

    for line in sys.stdin.buffer:
        send(work(json.loads(line), lambda: send({"begun": True})))


def _words(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}"[:500]


if __name__ == "__main__":
    main()
