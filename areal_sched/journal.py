"""The journal: a recorded run, simulated or real, in one format.

A gzip file of JSON lines. The first is the header: format and version, the scheduler with its
options and limits, facts about the run, and the meaning of every message code. Then one line per
handled event, ``[now_ns, event]``, ``[now_ns, event, [command, ...]]`` or, where handling raised,
``[now_ns, event, [command, ...], "error"]``; and one per measurement, ``[now_ns, measurement]``.

Streamed: nothing but one buffer is held in memory, and a journal cut off by a crash can be read up
to its last whole line. The same run gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, get_args

from areal_sched.codec import CODES, ENCODERS, decode, schema
from areal_sched.commands import Command
from areal_sched.errors import JournalError
from areal_sched.events import Event, TrainStepFinished
from areal_sched.measurements import Measurement

FORMAT = "areal-lab journal"
VERSION = 1

_BUFFER_LINES = 4096
# Level 1: twice as fast as the default and 20 % larger; the journal is on the simulator's hot path.
_LEVEL = 1
_GZIP = 31  # zlib's window bits that ask for a gzip header, which then holds no time stamp


class JournalWriter:
    """Writes a journal.

    Args:
        stream: binary file to append to; closed by `close`.
        header: run facts for the first line; keys of the format itself are added.
        durable: flush after every entry, for runs that may be killed; costs a hundredfold.
    """

    def __init__(
        self, stream: IO[bytes], header: Mapping[str, Any], *, durable: bool = False
    ) -> None:
        self._stream = stream
        self._compress = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._hash = hashlib.sha256()
        self._limit = 1 if durable else _BUFFER_LINES
        self._durable = durable
        self.entries = 0
        first = {"format": FORMAT, "version": VERSION, **header, "codes": schema()}
        self._lines = [json.dumps(first, separators=(",", ":"))]
        self.flush()

    def record(
        self, now_ns: int, event: Event, commands: tuple[Command, ...], error: str | None
    ) -> None:
        """Write one handled event; see the module's text for the line."""
        self.entries += 1
        if error is not None:
            self._record_error(now_ns, event, commands, error)
            return
        text = ENCODERS[type(event)](event)
        lines = self._lines
        if not commands:
            lines.append(f"[{now_ns},{text}]")
        elif len(commands) == 1:
            command = commands[0]
            lines.append(f"[{now_ns},{text},[{ENCODERS[type(command)](command)}]]")
        else:
            done = ",".join([ENCODERS[type(x)](x) for x in commands])
            lines.append(f"[{now_ns},{text},[{done}]]")
        if len(lines) >= self._limit:
            self.flush()

    def _record_error(
        self, now_ns: int, event: object, commands: tuple[object, ...], error: str
    ) -> None:
        # What caused the error may be no message, or one with improper fields: kept as text.
        def encode(x: object) -> str:
            encoder = ENCODERS.get(type(x))
            if encoder is not None:
                try:
                    text = encoder(x)
                    json.loads(text)
                except (TypeError, ValueError):
                    pass
                else:
                    return text
            return json.dumps(repr(x))

        done = ",".join(encode(x) for x in commands)
        self._lines.append(f"[{now_ns},{encode(event)},[{done}],{json.dumps(error)}]")
        self.flush(sync=True)

    def measure(self, now_ns: int, measurement: Measurement) -> None:
        """Write one measurement."""
        self._lines.append(f"[{now_ns},{ENCODERS[type(measurement)](measurement)}]")
        if len(self._lines) >= self._limit:
            self.flush()

    def flush(self, *, sync: bool = False) -> None:
        """Hand on what was recorded so far.

        The compressor keeps the last of it back unless `sync` is true or the journal durable:
        then the operating system has all of it, and the file is larger.
        """
        if self._lines:
            self._lines.append("")
            data = "\n".join(self._lines).encode()
            self._lines.clear()
            self._hash.update(data)
            self._stream.write(self._compress.compress(data))
        if sync or self._durable:
            self._stream.write(self._compress.flush(zlib.Z_SYNC_FLUSH))
            self._stream.flush()

    def close(self) -> None:
        """Finish the file. Closing twice does nothing."""
        if not self._stream.closed:
            self.flush()
            self._stream.write(self._compress.flush())
            self._stream.close()

    @property
    def sha256(self) -> str:
        """Hash of the uncompressed lines flushed so far; the same on every machine."""
        return self._hash.hexdigest()


class Unreadable(str):
    """Text of what made a run stop and was no message, or one with improper fields."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One handled event of a journal. ``line`` counts from 1, the header being 1.

    Where ``error`` is set, the event or the last command may be `Unreadable`.
    """

    line: int
    now_ns: int
    event: Event
    commands: tuple[Command, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement of a journal."""

    line: int
    now_ns: int
    measurement: Measurement


@dataclass(slots=True)
class Extent:
    """How much of a journal was read.

    Attributes:
        lines: whole lines, the header among them.
        entries: handled events.
        steps: training steps finished.
        now_ns: the time of the last entry or measurement.
    """

    lines: int = 1
    entries: int = 0
    steps: int = 0
    now_ns: int = 0

    def __str__(self) -> str:
        """Return it as part of a sentence."""
        if self.lines < 2:
            return "nothing but the header"
        seconds = self.now_ns / 1e9
        time = f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.3g} s"
        steps = f"{self.steps:,} training step{'' if self.steps == 1 else 's'}"
        entries = f"{self.entries:,} entr{'y' if self.entries == 1 else 'ies'}"
        return f"{entries}, {steps}, {time} of the run"


class JournalReader:
    """Reads a journal; iterate it for its entries and measurements, in order.

    Attributes:
        header: the first line.
        truncated: after iterating, whether the file breaks off (a killed run).
        read: how far the newest iteration has come.

    Raises:
        JournalError: no journal, another version, or a broken line; the message names them, and
            what could be read before.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.truncated = False
        self.read = Extent()
        first = next(iter(self._lines()), None)
        try:
            self.header: dict[str, Any] = json.loads(first or "null")
            form, version = self.header["format"], self.header["version"]
        except (ValueError, KeyError, TypeError):
            how = "; it breaks off in line 1, and nothing could be read" if self.truncated else ""
            raise JournalError(f"{self.path}: not a journal (no header line){how}") from None
        if form != FORMAT or version != VERSION:
            raise JournalError(
                f"{self.path}: is {form!r} version {version!r}; this program reads "
                f"{FORMAT!r} version {VERSION}; {self._only_header()}"
            )
        self._check_codes()

    def note(self) -> str | None:
        """What to tell of a journal that breaks off, after iterating: where, and what was read."""
        if not self.truncated:
            return None
        return f"{self.path}: breaks off after line {self.read.lines}; read: {self.read}"

    def _only_header(self) -> str:
        run = self.header.get("run")
        facts = {"scheduler": self.header.get("scheduler")}
        if isinstance(run, dict):
            facts = {"run": run.get("name"), **facts, "steps asked for": run.get("steps")}
        told = ", ".join(f"{name} {value!r}" for name, value in facts.items() if value is not None)
        return f"read: nothing but the header ({told or 'it says nothing of the run'})"

    def _check_codes(self) -> None:
        """Refuse messages of another shape: their fields would be taken for other ones.

        A code that only one side knows is no harm before it is met.
        """
        codes = self.header.get("codes")
        for code, ours in schema().items():
            theirs = codes.get(code, ours) if isinstance(codes, dict) else ours
            if theirs != ours:
                raise JournalError(
                    f"{self.path}: line 1: codes.{code} = {theirs!r}; in this program it is "
                    f"{ours!r}; {self._only_header()}"
                )

    def _lines(self) -> Iterator[str]:
        try:
            stream: IO[bytes] = self.path.open("rb")
        except OSError as exc:
            raise JournalError(f"{self.path}: {exc.strerror or exc}") from None
        with stream:
            unzip = zlib.decompressobj(_GZIP)
            rest = b""
            number = 0
            while block := stream.read(1 << 16):
                before = unzip.copy()
                damage: zlib.error | None = None
                try:
                    data = unzip.decompress(block)
                except zlib.error as exc:
                    data, damage = _sound(before, block), exc
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    number += 1
                    try:
                        text = line.decode()
                    except UnicodeDecodeError as exc:
                        raise self._broken(number, exc) from None
                    yield text
                if damage is not None:
                    if not number:
                        raise JournalError(f"{self.path}: not a gzip file ({damage})")
                    raise JournalError(
                        f"{self.path}: damaged after line {number} ({damage}); read: {self.read}"
                    )
            self.truncated = bool(rest) or not unzip.eof

    def _broken(self, number: int, exc: Exception) -> JournalError:
        return JournalError(f"{self.path}, line {number}: {exc}; read before it: {self.read}")

    def __iter__(self) -> Iterator[Entry | Measured]:
        lines = self._lines()
        next(lines)
        read = self.read = Extent()
        measurements = get_args(Measurement)
        for number, line in enumerate(lines, start=2):
            try:
                now_ns, first, *more = json.loads(line)
                if type(now_ns) is not int:
                    raise TypeError(f"the time {now_ns!r} is no whole number")
                error = more[1] if len(more) > 1 else None
                decoded = decode if error is None else _read
                message = decoded(first)
                commands = tuple(map(decoded, more[0])) if more else ()
            except (ValueError, TypeError, IndexError) as exc:
                raise self._broken(number, exc) from None
            read.lines = number
            read.now_ns = now_ns
            if isinstance(message, measurements):
                yield Measured(number, now_ns, message)
                continue
            read.entries += 1
            if type(message) is TrainStepFinished:
                read.steps += 1
            yield Entry(number, now_ns, message, commands, error)  # type: ignore[arg-type]

    def entries(self) -> Iterator[Entry]:
        """The handled events alone."""
        return (item for item in self if isinstance(item, Entry))


def _sound(unzip: Any, block: bytes) -> bytes:
    """What can be read of a damaged block, up to the damage."""
    data = b""
    for place in range(len(block)):
        try:
            data += unzip.decompress(block[place : place + 1])
        except zlib.error:
            break
    return data


def _read(spelled: Any) -> Any:
    return Unreadable(spelled) if isinstance(spelled, str) else decode(spelled)


def text_of(path: Path | str) -> str:
    """A journal's uncompressed text, for people and golden tests."""
    out = io.StringIO()
    reader = JournalReader(path)
    for line in reader._lines():
        out.write(line + "\n")
    return out.getvalue()


assert set(ENCODERS) == set(CODES.values())
