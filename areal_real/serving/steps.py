"""What an engine did in each of its steps, as SGLang publishes it ("forward pass metrics").

Over a Unix socket: what was prefilled, how many rollouts were decoded with how many tokens in
their KV caches, and how long the model ran. SGLang sends a message a step; when the step ended is
when its message came in. Our launcher for CPUs sends many steps in a message, each with the time of
its end. Steps in a row that did the same are joined into one `EngineSteps`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from areal_sched.ids import ServerId
from areal_sched.measurements import EngineActivity, EngineSteps

NS_PER_S = 1_000_000_000

_Step: TypeAlias = Sequence[Any]
"""See `areal_real.serving.cpu_launcher._StepPublisher`."""

MOST_JOINED = 64
"""So many steps at most make one measurement."""

Message: TypeAlias = tuple[int, bytes, bytes]
"""When it came in on the monotonic clock of its machine in ns, its number, its payload."""

_LOOK_MS = 200
_SOCKET = "steps"


def step_flags(folder: Path) -> list[str]:
    """SGLang's flags that make it publish its steps; the socket lies in this folder."""
    return [
        "--enable-forward-pass-metrics",
        *("--forward-pass-metrics-ipc-name", f"ipc://{folder / _SOCKET}"),
    ]


class StepListener:
    """Receives the messages of one server's process, each with the time it came in.

    A thread of its own, so that the time is right while the event loop is busy.

    Args:
        folder: as given to `step_flags`.
    """

    def __init__(self, folder: Path) -> None:
        self._address = f"ipc://{folder / _SOCKET}.0"  # of data-parallel rank 0
        self.received: deque[Message] = deque()
        self._ended = threading.Event()
        threading.Thread(target=self._listen, name="engine-steps", daemon=True).start()

    def close(self) -> None:
        """Listen no more: the thread ends by itself, soon. May be called again."""
        self._ended.set()

    def _listen(self) -> None:
        import zmq

        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVTIMEO, _LOOK_MS)
            socket.subscribe(b"")
            socket.connect(self._address)
            while not self._ended.is_set():
                try:
                    _, number, payload = socket.recv_multipart()
                except zmq.Again:
                    continue
                self.received.append((time.monotonic_ns(), number, payload))


class StepLog:
    """Turns a server's messages into measurements.

    Args:
        server_id: whose steps.
        measure: takes each measurement.
    """

    def __init__(self, server_id: int, measure: Callable[[EngineSteps], None]) -> None:
        self._server_id = ServerId(server_id)
        self._measure = measure
        self._origin_ns: int | None = None  # None: nobody wants to know
        self._resumptions: deque[int] = deque()  # when generation began again, not yet used
        self._since_ns = 0  # the next step began then, or later
        self._number = -1
        self._known = True  # no message has been lost since the last step
        self._joined: list[int] | None = None  # the fields of EngineSteps from start_ns on
        self._activity: EngineActivity = "decode"

    def begin(self, clock_origin_ns: int) -> None:
        """Keep account from now on, on the run's clock: `time.monotonic_ns` less this."""
        self._origin_ns = clock_origin_ns
        self._since_ns = time.monotonic_ns()

    def close(self) -> None:
        """Tell what is not told yet, and then nothing more."""
        self._tell()
        self._origin_ns = None

    def generating(self) -> None:
        """The server has been doing something else, and begins to generate now."""
        self._resumptions.append(time.monotonic_ns())

    def take(self, received: deque[Message]) -> None:
        """Take the messages that have come in; they are removed."""
        import msgspec

        while received:
            end_ns, number, payload = received.popleft()
            if self._origin_ns is None:
                continue
            message: dict[str, Any] | list[_Step] = msgspec.msgpack.decode(payload)
            steps = message if isinstance(message, list) else _step(end_ns, message)
            numbered = int.from_bytes(number, "big")
            self._known &= numbered == self._number + 1
            self._number = numbered
            for step in steps:
                self._take(step, self._known)
                self._known = True

    def _take(self, step: _Step, whole: bool) -> None:
        """Take one step; it is not whole if a message before it was lost."""
        end_ns, forward_s, prefilled, new, cached, decoded, context = step
        start_ns = self._since_ns
        while self._resumptions and self._resumptions[0] <= end_ns:
            start_ns = max(start_ns, self._resumptions.popleft())
        self._since_ns = end_ns
        if not whole or start_ns >= end_ns:
            self._tell()  # a message was lost: nobody knows when this step began
            return
        activity: EngineActivity = "prefill" if prefilled else "decode"
        rollouts = int(prefilled or decoded)
        context = cached if prefilled else context
        forward_ns = round(forward_s * NS_PER_S)
        joined = self._joined
        if (
            joined is None
            or activity != self._activity
            or rollouts != joined[4]
            or start_ns != joined[1]
            or joined[3] == MOST_JOINED
        ):
            self._tell()
            self._activity = activity
            self._joined = [start_ns, end_ns, forward_ns, 1, rollouts, context, new]
            return
        joined[1] = end_ns
        joined[2] += forward_ns
        joined[3] += 1
        joined[5] += context
        joined[6] += new

    def _tell(self) -> None:
        joined, self._joined = self._joined, None
        if joined is None or self._origin_ns is None:
            return
        start_ns, end_ns, forward_ns, steps, rollouts, context, new = joined
        start_ns, end_ns = start_ns - self._origin_ns, end_ns - self._origin_ns
        if start_ns < 0:
            return
        self._measure(
            EngineSteps(
                server_id=self._server_id,
                activity=self._activity,
                start_ns=start_ns,
                end_ns=end_ns,
                forward_ns=forward_ns,
                steps=steps,
                rollouts=rollouts,
                context_tokens=context,
                new_tokens=new,
            )
        )


def on_our_clock(message: Message, ahead_ns: int) -> Message:
    """A message of another machine, as if it came from this one.

    Args:
        message: as it came in there; our launcher for CPUs put times of that clock into it too.
        ahead_ns: how far that machine's monotonic clock is ahead of ours.
    """
    import msgspec

    received_ns, number, payload = message
    if ahead_ns:
        steps: dict[str, Any] | list[_Step] = msgspec.msgpack.decode(payload)
        if isinstance(steps, list):
            ours = [(end_ns - ahead_ns, *rest) for end_ns, *rest in steps]
            payload = msgspec.msgpack.encode(ours)
    return received_ns - ahead_ns, number, payload


def _step(end_ns: int, message: dict[str, Any]) -> list[_Step]:
    """SGLang's own message, which came in at that time; a mere sign of life has no step."""
    told = message["scheduled_requests"]
    prefilled, decoded = told["num_prefill_requests"], told["num_decode_requests"]
    if not prefilled and not decoded:
        return []
    new, cached = told["sum_prefill_tokens"], told["sum_prefill_kv_tokens"]
    context = told["sum_decode_kv_tokens"]
    return [(end_ns, message["wall_time"], prefilled, new, cached, decoded, context)]
