"""What one request produced: token ids with the log-prob and the weight version of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from areal_real.errors import BackendError

FinishKind: TypeAlias = Literal["stop", "length", "abort"]
"""``stop``: a stop token (which is part of the segment); ``length``: the token limit; ``abort``:
cut short, what there is is kept."""

_FINISH_KINDS: tuple[FinishKind, ...] = ("stop", "length", "abort")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """What one request generated: a rollout is one segment, or several after interruptions.

    Attributes:
        ids: N generated tokens.
        logprobs: float32 (N,), of each token in the distribution it was drawn from, that is after
            the temperature.
        versions: int64 (N,), the weights that generated each token, as the server reported it.
        finish: why it ended.
        cached_tokens: how many of the input's tokens were found in the server's prefix cache.
    """

    ids: tuple[int, ...]
    logprobs: NDArray[np.float32]
    versions: NDArray[np.int64]
    finish: FinishKind
    cached_tokens: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def spans(self) -> list[tuple[int, int, int]]:
        """(version, start, end) of each run of tokens of one version."""
        edges = np.flatnonzero(np.diff(self.versions)) + 1
        starts = [0, *edges.tolist()] if len(self) else []
        ends = [*edges.tolist(), len(self)] if len(self) else []
        return [(int(self.versions[a]), a, b) for a, b in zip(starts, ends, strict=True)]


def empty_segment() -> Segment:
    """Of a rollout that was stopped before it had a token."""
    return Progress().partial()


class Progress:
    """What a request has produced so far, from one answer or from many when it is streamed.

    Args:
        grown: called with the number of tokens each time some come in.

    Attributes:
        finish: set by the last answer.
    """

    def __init__(self, grown: Callable[[int], None] | None = None) -> None:
        self.finish: FinishKind | None = None
        self._grown = grown
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._versions: list[int] = []
        self._label: int | None = None
        self._cached_tokens = 0

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, answer: Mapping[str, Any]) -> None:
        """Take an answer of SGLang's ``/generate``: all of it, or what is new since the last one.

        Only the last answer holds the version spans, and those are exact. Until then tokens have
        the version the server had when it sent them; those sent together around an update have
        the older one, so that lag is never understated. An answer that comes a second time is left
        out: the server counts along.

        Raises:
            BackendError: the answer contradicts itself, or one before it is missing.
        """
        meta = answer["meta_info"]
        ids = answer["output_ids"]
        counted = meta.get("completion_tokens", len(self._ids) + len(ids))
        if ids and counted == len(self._ids):
            return
        if counted != len(self._ids) + len(ids):
            raise BackendError(
                f"{len(self._ids)} tokens came, and {len(ids)} that make {counted} by the server's"
                " count"
            )
        triples = meta.get("output_token_logprobs") or []
        if [token for _, token, _ in triples] != list(ids):
            raise BackendError(f"{len(ids)} token ids came with {len(triples)} other log-probs")
        if not all(type(token) is int and isinstance(x, int | float) for x, token, _ in triples):
            raise BackendError("a token id or a log-prob is no number")
        label = _version(meta["weight_version"])
        known = label if self._label is None else min(self._label, label)
        self._label = label
        self._ids += ids
        self._logprobs += [logprob for logprob, _, _ in triples]
        self._versions += [known] * len(ids)
        self._cached_tokens = meta.get("cached_tokens", self._cached_tokens)
        reason = meta.get("finish_reason")
        if reason is not None:
            kind = reason["type"]
            if kind not in _FINISH_KINDS:
                raise BackendError(f"a request ended with {reason}")
            self.finish = kind
            if self._ids:
                self._versions = _versions(meta["weight_versions"], len(self._ids))
        if self._grown is not None and ids:
            self._grown(len(ids))

    def partial(self) -> Segment:
        """What there is, as an aborted segment."""
        return self._segment("abort")

    def complete(self) -> Segment:
        """The whole segment.

        Raises:
            BackendError: the last answer has not come.
        """
        if self.finish is None:
            raise BackendError("the server ended its answer without a finish reason")
        return self._segment(self.finish)

    def _segment(self, finish: FinishKind) -> Segment:
        return Segment(
            ids=tuple(self._ids),
            logprobs=np.array(self._logprobs, np.float32),
            versions=np.array(self._versions, np.int64),
            finish=finish,
            cached_tokens=self._cached_tokens,
        )


def _versions(spans: Sequence[Mapping[str, Any]], tokens: int) -> list[int]:
    """Spans to one version per token; they must tile the tokens."""
    versions: list[int] = []
    for span in spans:
        if span["start"] != len(versions) or not span["start"] <= span["end"] <= tokens:
            break
        versions += [_version(span["version"])] * (span["end"] - span["start"])
    if len(versions) != tokens:
        raise BackendError(f"version spans {list(spans)} do not tile {tokens} tokens")
    return versions


def _version(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BackendError(f"weight version {text!r} is no number") from None
