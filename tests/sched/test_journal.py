"""The journal: what is written is read, the same bytes for the same run, damage is named."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from areal_sched import (
    Entry,
    Event,
    JournalError,
    JournalReader,
    JournalWriter,
    Measured,
    ServerSpan,
)
from areal_sched.codec import schema
from areal_sched.ids import ServerId
from areal_sched.journal import text_of
from tests.sched import any_messages
from tests.sched.bench import finished, lost, rewarded, start

NS = st.integers(0, 2**63)
HEADER = {"scheduler": "areal", "seed": 3}

handled = st.tuples(NS, any_messages.events, st.lists(any_messages.commands, max_size=3))
measured = st.tuples(NS, any_messages.measurements)


class Kept(io.BytesIO):
    """A stream whose bytes outlive it."""

    data = b""

    def close(self) -> None:
        if not self.closed:
            self.data = self.getvalue()
        super().close()


def written(items: list[tuple[Any, ...]], *, durable: bool = False) -> tuple[bytes, str]:
    """Bytes and hash of a journal of handled events and measurements."""
    stream = Kept()
    writer = JournalWriter(stream, HEADER, durable=durable)
    for item in items:
        if len(item) == 2:
            writer.measure(*item)
        else:
            now_ns, event, commands = item
            writer.record(now_ns, event, tuple(commands), None)
    writer.close()
    return stream.data, writer.sha256


def read(data: bytes) -> tuple[list[Entry | Measured], JournalReader]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.gz"
        path.write_bytes(data)
        reader = JournalReader(path)
        return list(reader), reader


def span(end_ns: int) -> ServerSpan:
    return ServerSpan(
        server_id=ServerId(0),
        activity="generate",
        start_ns=0,
        end_ns=end_ns,
        prefill_ns=1,
        recompute_ns=2,
        generated_tokens=3,
        recomputed_tokens=4,
    )


def a_run(count: int) -> list[tuple[Any, ...]]:
    """So many entries that do not compress well."""
    return [
        (i, finished(i, tokens=i * i * 7919 % 104_729), [start(i, i * 31 % 1009)])
        for i in range(count)
    ]


# ---- what is written is read -----------------------------------------------------------------


@settings(max_examples=60)
@given(items=st.lists(handled | measured, max_size=8), durable=st.booleans())
def test_everything_written_is_read_again_in_order(
    items: list[tuple[Any, ...]], durable: bool
) -> None:
    data, _ = written(items, durable=durable)
    got, reader = read(data)
    expected: list[Entry | Measured] = []
    for line, (now_ns, first, *commands) in enumerate(items, start=2):
        if commands:
            expected.append(Entry(line, now_ns, first, tuple(commands[0])))
        else:
            expected.append(Measured(line, now_ns, first))
    assert got == expected
    assert not reader.truncated
    assert reader.header == {
        "format": "areal-lab journal",
        "version": 1,
        **HEADER,
        "codes": schema(),
    }


@settings(max_examples=30)
@given(items=st.lists(handled | measured, max_size=8))
def test_the_same_run_gives_the_same_bytes(items: list[tuple[Any, ...]]) -> None:
    assert written(items) == written(items)
    assert written(items)[1] == written(items, durable=True)[1], "flushing changes no line"


def test_any_gzip_program_can_read_it_and_the_text_is_the_hashed_one() -> None:
    data, sha256 = written(a_run(3))
    text = gzip.decompress(data)
    assert hashlib.sha256(text).hexdigest() == sha256
    lines = text.decode().splitlines()
    assert lines[1] == '[0,["finished",0,0,0,"stop"],[["START",0,[0],0]]]'
    assert json.loads(lines[0])["codes"]["lost"] == ["ServerLost", "server_id"]


def test_the_text_for_people_is_the_lines(tmp_path: Path) -> None:
    data, _ = written(a_run(2))
    path = tmp_path / "journal.gz"
    path.write_bytes(data)
    assert text_of(path) == gzip.decompress(data).decode()


def test_entries_leave_measurements_out(tmp_path: Path) -> None:
    path = tmp_path / "journal.gz"
    path.write_bytes(written([(1, lost(0), []), (2, span(2)), (3, lost(1), [])])[0])
    assert [entry.line for entry in JournalReader(path).entries()] == [2, 4]


def test_nothing_is_held_in_memory_but_a_buffer() -> None:
    stream = io.BytesIO()
    writer = JournalWriter(stream, HEADER)
    sizes = []
    for now_ns, event, commands in a_run(20_000):
        writer.record(now_ns, event, tuple(commands), None)
        sizes.append(stream.tell())
    writer.measure(1, span(1))
    assert sizes[10_000] > sizes[0]
    assert sizes[-1] > sizes[10_000]
    assert writer.entries == 20_000


def test_measurements_alone_are_streamed_too() -> None:
    stream = io.BytesIO()
    writer = JournalWriter(stream, HEADER)
    for end_ns in range(30_000):
        writer.measure(end_ns, span(end_ns * end_ns * 7919 % 104_729))
    assert stream.tell() > 10_000


def test_closing_twice_does_nothing() -> None:
    stream = Kept()
    writer = JournalWriter(stream, HEADER)
    writer.record(1, lost(0), (), None)
    writer.close()
    first = stream.data
    writer.close()
    assert stream.data == first


# ---- killed runs -----------------------------------------------------------------------------


@given(cut=st.integers(0, 4000))
def test_a_durable_journal_cut_off_anywhere_is_read_up_to_its_last_whole_line(cut: int) -> None:
    stream = Kept()
    writer = JournalWriter(stream, HEADER, durable=True)
    ends = [stream.tell()]
    for now_ns, event, commands in a_run(100):
        writer.record(now_ns, event, tuple(commands), None)
        ends.append(stream.tell())
    writer.close()
    whole, _ = read(stream.data)
    with pytest.raises(JournalError, match="no header line"):
        read(stream.data[: ends[0] // 2])
    size = min(ends[0] + cut, len(stream.data) - 1)
    on_disk = sum(end <= size for end in ends) - 1
    got, reader = read(stream.data[:size])
    assert reader.truncated
    # One more if only the marks of the flush are missing.
    assert got in (whole[:on_disk], whole[: on_disk + 1])


def test_a_durable_journal_has_every_entry_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.gz"
    writer = JournalWriter(path.open("wb"), HEADER, durable=True)
    for count in range(3):
        reader = JournalReader(path)
        assert len(list(reader)) == count
        assert reader.truncated
        writer.record(count, lost(count), (), None)
    writer.measure(9, span(9))
    assert len(list(JournalReader(path))) == 4
    writer.close()


def test_an_error_is_on_disk_before_the_process_can_die(tmp_path: Path) -> None:
    path = tmp_path / "journal.gz"
    writer = JournalWriter(path.open("wb"), HEADER)
    writer.record(1, lost(0), (), None)
    writer.record(2, lost(9), (), "UnexpectedEvent: there is no server 9")
    entries = list(JournalReader(path).entries())
    assert [entry.event for entry in entries] == [lost(0), lost(9)]
    assert entries[-1].error == "UnexpectedEvent: there is no server 9"
    writer.close()


@pytest.mark.parametrize(
    "culprit",
    [
        "nonsense",
        None,
        finished("seven"),  # type: ignore[arg-type]
        finished(None),  # type: ignore[arg-type]
        start(0, server_id=0.5),  # type: ignore[arg-type]
        start("a"),  # type: ignore[arg-type]
    ],
)
def test_nonsense_that_made_a_run_stop_can_be_written_and_read(
    tmp_path: Path, culprit: Any
) -> None:
    for event, commands in ((culprit, ()), (lost(0), (start(0, 0), culprit))):
        path = tmp_path / "journal.gz"
        writer = JournalWriter(path.open("wb"), HEADER)
        writer.record(1, event, commands, "Broken: it")
        writer.close()
        (entry,) = JournalReader(path).entries()
        assert entry.error == "Broken: it"
        last: Any = (entry.event, *entry.commands)[-1]
        assert last in (culprit, repr(culprit))


# ---- damage ----------------------------------------------------------------------------------


def damaged(tmp_path: Path, lines: list[str]) -> Path:
    """A journal with these lines after its header."""
    header = gzip.decompress(written([])[0]).decode()
    path = tmp_path / "journal.gz"
    path.write_bytes(gzip.compress((header + "".join(x + "\n" for x in lines)).encode("latin1")))
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1,", "line 3: "),
        ("nothing", "line 3: "),
        ("7", "line 3: "),
        ("[]", "line 3: "),
        ('[1,["lost",1,1]]', "line 3: 'lost' has 2 fields, expected 1"),
        ('[1,["los",1]]', "line 3: unknown message code 'los'"),
        ('[1,[["lost"],1]]', "line 3: "),
        ('[1,["lost",1],7]', "line 3: "),
        ('[1,["lost",1],[["START"]]]', "line 3: 'START' has 0 fields, expected 3"),
        ('[1,"ServerLost()"]', "line 3: "),
        ('[1,["failed",1,"\xff"]]', "line 3: .*decode"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = damaged(tmp_path, ['[1,["lost",1]]', line, '[1,["lost",2]]'])
    reader = iter(JournalReader(path))
    assert next(reader).line == 2
    with pytest.raises(JournalError, match=message) as caught:
        next(reader)
    assert str(path) in str(caught.value)


def test_damage_to_the_compressed_bytes_is_named_with_the_last_good_line(tmp_path: Path) -> None:
    data = bytearray(written(a_run(60_000))[0])
    middle = len(data) // 2
    for i in range(middle, middle + 200):
        data[i] ^= 0x5A
    path = tmp_path / "journal.gz"
    path.write_bytes(data)
    seen: list[Entry | Measured] = []
    with pytest.raises(JournalError, match=r"line \d+") as caught:
        seen.extend(JournalReader(path))
    assert len(seen) > 2
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no header line"),
        (b"plain text\n", "not a gzip file"),
        (gzip.compress(b"", mtime=0), "no header line"),
        (gzip.compress(b"[1,2]\n", mtime=0), "no header line"),
        (gzip.compress(b"{}\n", mtime=0), "no header line"),
        (gzip.compress(b'{"format":"a diary","version":1}\n', mtime=0), "is 'a diary' version 1"),
        (
            gzip.compress(b'{"format":"areal-lab journal","version":2}\n', mtime=0),
            "version 2; .* reads",
        ),
        (gzip.compress(b"\xff\n", mtime=0), "line 1: .*decode"),
    ],
)
def test_what_is_no_journal_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "journal.gz"
    path.write_bytes(data)
    with pytest.raises(JournalError, match=message) as caught:
        JournalReader(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gz", tmp_path):
        with pytest.raises(JournalError, match=str(path)):
            JournalReader(path)


def test_a_broken_line_does_not_spoil_what_was_before(tmp_path: Path) -> None:
    path = damaged(tmp_path, ['[5,["reward",1,1]]', '[6,["reward",1,NaN]]', "}"])
    entries: list[Event] = []
    with pytest.raises(JournalError, match="line 4"):
        entries.extend(entry.event for entry in JournalReader(path).entries())
    assert entries[0] == rewarded(1)
    assert len(entries) == 2
