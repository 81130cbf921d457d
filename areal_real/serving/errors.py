"""What can go wrong with an inference server."""

from __future__ import annotations

from areal_real.errors import BackendError
from areal_real.serving.segment import Segment


class ServerStartFailed(BackendError):
    """A server did not come up; the message ends with the last lines of its log."""


class ServerGone(BackendError):
    """No answer: the connection failed, broke off, or the time was over.

    Whether the server is dead, hangs or merely dropped a connection is for the caller to find out.

    Attributes:
        partial: what a streamed request had produced until then; None if it was no such request.
    """

    def __init__(self, message: str, partial: Segment | None = None) -> None:
        super().__init__(message)
        self.partial = partial


class RequestRefused(BackendError):
    """The server answered that it will not do this.

    Attributes:
        status: HTTP status.
        text: what the server said.
    """

    def __init__(self, what: str, status: int, text: str) -> None:
        super().__init__(f"{what}: status {status}: {text}")
        self.status = status
        self.text = text
