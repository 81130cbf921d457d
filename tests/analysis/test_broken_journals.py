"""Journals that break off or are damaged: what could be read is told, and adds up."""

from __future__ import annotations

import gzip
import re
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.accounts import accounts
from analysis.compare import compare
from analysis.phases import phases
from analysis.recorder import RunRecorder, read_run
from analysis.steps import steps_of
from analysis.summary import summarise
from areal_sched import Entry, JournalError, JournalReader
from areal_sched.events import TrainStepFinished
from tests.analysis.made_up_run import MadeUpRun

SMALL = MadeUpRun("areal", steps=4, batch=16, in_flight=16, servers=3, fail_share=0.1)
TEXT = gzip.decompress(SMALL.journal)
HEADER_BYTES = TEXT.index(b"\n") + 1


def stored(text: bytes) -> bytes:
    """A journal whose bytes are its text: cut anywhere, the text is cut about there."""
    return gzip.compress(text, compresslevel=0, mtime=0)


def read(data: bytes) -> RunRecorder:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl.gz"
        path.write_bytes(data)
        return read_run(path)


def check(data: bytes, run: MadeUpRun = SMALL) -> RunRecorder:
    """Everything that is made of a journal, of what is left of one."""
    made = read(data)
    assert made.truncated
    assert made.note is not None
    assert re.search(r"breaks off after line \d+; read: (nothing but|[\d,]+ entr)", made.note)
    whole = accounts(made)
    assert sum(whole.gpu_ns.values()) == made.facts.gpus * made.end_ns
    assert min(whole.gpu_ns.values()) >= 0
    summary = summarise(made, made.end_ns, 0.0, "")
    told = phases(made)
    assert all(x <= made.end_ns for x in steps_of(made).end_ns.tolist())
    shares = [x or 0.0 for x in summary["gpu_time_share"].values()]
    assert sum(shares) == pytest.approx(1.0 if made.end_ns else 0.0)
    complete = summarise(run.recorder, run.now_ns, 0.0, "")
    assert summary["steps"] <= complete["steps"]
    compare(complete, summary, phases(run.recorder), told)
    return made


RUNS = {
    "areal": SMALL,
    "in_flight": MadeUpRun("in_flight", steps=4, batch=16, in_flight=16, servers=3),
    "synchronous": MadeUpRun(
        "synchronous", steps=4, batch=16, servers=3, training_gpus=3, colocated=True
    ),
}


@pytest.mark.parametrize("name", RUNS)
@settings(max_examples=40)
@given(data=st.data())
def test_a_journal_cut_at_any_compressed_byte(name: str, data: st.DataObject) -> None:
    journal = RUNS[name].journal
    cut = data.draw(st.integers(0, len(journal) - 1))
    if b"\n" in zlib.decompressobj(31).decompress(journal[:cut]):
        check(journal[:cut], RUNS[name])
    else:
        with pytest.raises(JournalError, match="breaks off in line 1, and nothing"):
            read(journal[:cut])


@settings(max_examples=80)
@given(cut=st.integers(0, len(TEXT) - 1), whole_gzip=st.booleans())
def test_a_journal_cut_at_any_place_of_its_text(cut: int, whole_gzip: bool) -> None:
    """In the middle of a line, with the gzip file around it whole or not."""
    if whole_gzip and (TEXT[:cut].endswith(b"\n") or not cut):
        return  # not broken off: a journal that ends there
    data = stored(TEXT[:cut]) if whole_gzip else stored(TEXT[:cut])[:-1]
    if cut < HEADER_BYTES:
        with pytest.raises(JournalError, match="breaks off in line 1, and nothing could be read"):
            read(data)
        return
    made = check(data)
    assert made.note is not None
    lines = TEXT[:cut].count(b"\n")
    assert f"breaks off after line {lines}; " in made.note


@settings(max_examples=40)
@given(cut=st.integers(HEADER_BYTES, len(TEXT) - 1))
def test_the_note_counts_what_was_read(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j.gz"
        path.write_bytes(stored(TEXT[:cut])[:-1])
        reader = JournalReader(path)
        items = list(reader)
    entries = [x for x in items if isinstance(x, Entry)]
    assert reader.read.entries == len(entries)
    assert reader.read.steps == sum(isinstance(x.event, TrainStepFinished) for x in entries)
    assert reader.read.lines == 1 + len(items)
    assert reader.read.now_ns == (items[-1].now_ns if items else 0)
    assert reader.note() == f"{path}: breaks off after line {1 + len(items)}; read: {reader.read}"


@settings(max_examples=40)
@given(
    line=st.integers(1, TEXT.count(b"\n") - 1),
    broken=st.sampled_from([b"{{{", b'[1,["zz",1]]', b"", b'["x",["lost",1]]', b"[1]", b"\xff"]),
)
def test_a_broken_line_says_where_it_is_and_what_is_before(line: int, broken: bytes) -> None:
    lines = TEXT.splitlines()
    lines[line] = broken
    with pytest.raises(JournalError) as caught:
        read(stored(b"\n".join([*lines, b""])))
    assert f", line {line + 1}: " in str(caught.value)
    before = sum(
        not x.split(b'["', 1)[1].startswith((b"server_s", b"trainer_s")) for x in lines[1:line]
    )
    many = "nothing but the header" if line == 1 else f"read before it: {before:,} entr"
    assert many in str(caught.value)


def test_how_much_was_read_in_words() -> None:
    from areal_sched.journal import Extent

    assert str(Extent()) == "nothing but the header"
    assert str(Extent(2, 1, 1, 1_500_000_000)) == "1 entry, 1 training step, 1.5 s of the run"
    told = str(Extent(9000, 5000, 12, 600 * 10**9))
    assert told == "5,000 entries, 12 training steps, 10.0 min of the run"
