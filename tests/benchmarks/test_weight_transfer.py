"""The table of weight transfers: standstill by hand, coefficients found again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.measured import ROOT
from benchmarks.weight_transfer.__main__ import main
from benchmarks.weight_transfer.model import cells, fit_methods, remarks
from benchmarks.weight_transfer.updates import DataError, Update, load, save, standstill

MEASURED = ROOT / "benchmarks" / "weight_transfer" / "measured.json"
MB = 1_000_000
SIZES = (1 * MB, 8 * MB, 26 * MB, 72 * MB, 200 * MB)
TRUE = {"disk": (0.02, 3e-9, 1e-9), "collective": (0.05, 1e-9, 0.8e-9)}
"""Latency, seconds a byte, and for each other server."""


def made(noise: float = 0.0) -> list[Update]:
    """Updates as the model has them, up to some noise."""
    random_ = random.Random(1)
    found = []
    for size in SIZES:
        for method, (latency_s, per_byte_s, shared_s) in TRUE.items():
            for servers, at_once in ((1, None), (2, None), (2, 1)):
                sharing = at_once or servers
                for _ in range(5):
                    factor = 1 + noise * random_.uniform(-1, 1)
                    load_s = factor * (latency_s + (per_byte_s + (sharing - 1) * shared_s) * size)
                    rounds = servers // sharing
                    found.append(
                        Update(
                            size_bytes=size,
                            servers=servers,
                            method=method,
                            servers_at_once=at_once,
                            publish_s=factor * (0.01 + 4e-9 * size),
                            loads_s=(load_s,) * servers,
                            total_s=rounds * load_s,
                            still_s=servers * load_s,
                            all_still_s=load_s if rounds == 1 else 0.0,
                        )
                    )
    return found


def test_standstill_is_what_is_not_generation_in_the_window() -> None:
    first = [("generate", 0, 10), ("load", 10, 30), ("generate", 30, 40), ("idle", 40, 60)]
    second = [("load", 0, 20), ("generate", 20, 45), ("paused", 45, 50), ("load", 50, 55)]
    assert standstill([first], 0, 100) == (40, 40)
    assert standstill([first], 15, 45) == (20, 20)
    assert standstill([first, second], 0, 100) == (20 + 20 + 20 + 10, 10 + 10)
    assert standstill([first, []], 0, 100) == (40, 0), "one that never stopped"
    assert standstill([first], 31, 39) == (0, 0)


def test_the_model_finds_what_made_the_data() -> None:
    for noise, near in ((0.0, 0.01), (0.05, 0.1)):
        methods = fit_methods(made(noise), (SIZES[0], SIZES[2], SIZES[4]))
        for name, (latency_s, per_byte_s, shared_s) in TRUE.items():
            fitted = methods[name].load
            assert fitted["latency_s"] == pytest.approx(latency_s, rel=near)
            assert fitted["per_byte_s"] == pytest.approx(per_byte_s, rel=near)
            assert fitted["shared_per_byte_s"] == pytest.approx(shared_s, rel=2 * near)
            assert methods[name].total_s(100 * MB, 2, 1) == pytest.approx(
                2 * (latency_s + per_byte_s * 100 * MB), rel=near
            )
            assert methods[name].publish_s(100 * MB) == pytest.approx(0.41, rel=near)


def test_what_was_fitted_is_told_from_what_was_predicted() -> None:
    updates = made()
    # The model must not have seen these: they are twice what it says.
    odd = [
        Update(
            size_bytes=update.size_bytes,
            servers=update.servers,
            method=update.method,
            servers_at_once=update.servers_at_once,
            publish_s=2 * update.publish_s,
            loads_s=tuple(2 * x for x in update.loads_s),
            total_s=2 * update.total_s,
            still_s=update.still_s,
            all_still_s=update.all_still_s,
        )
        if update.size_bytes == SIZES[1]
        else update
        for update in updates
    ]
    shown = cells(odd, (SIZES[0], SIZES[2], SIZES[4]))
    assert len(shown) == len(SIZES) * 2 * 3
    for cell in shown:
        size = cell.first.size_bytes
        assert cell.fitted is (size in (SIZES[0], SIZES[2], SIZES[4]))
        expected = -0.5 if size == SIZES[1] else 0.0
        for error in (cell.load_error, cell.total_error, cell.publish_error):
            assert error == pytest.approx(expected, abs=0.01)
    assert any(line.startswith("disk, predicted: median error 25%") for line in remarks(shown))


def test_a_file_of_updates_is_read_again_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {
        "mode": "in_place",
        "bucket_bytes": 2**20,
        "sizes": dict(zip(("1M", "8M", "26M", "72M", "199M"), SIZES, strict=True)),
    }
    save(tmp_path / "a.json", made(), about)
    assert load(tmp_path / "a.json") == (made(), about)
    assert main(["--from", str(tmp_path / "a.json")]) == 0
    shown = capsys.readouterr().out
    assert "buckets of 1 MiB" in shown
    assert shown.count("fitted") == 3 * 6 + 2
    assert shown.count("predicted") == 2 * 6 + 2
    assert main(["--from", str(tmp_path / "a.json"), "--markdown"]) == 0
    page = capsys.readouterr().out.splitlines()
    assert {line.count("|") for line in page if line.startswith("|")} == {17}
    assert "| 1.0 | 2 | disk | 1 | 14 | 23 | 23 | 43 | 46 | 46 | 50% | 0 | 23 |" in page[5]
    assert "load by disk: 20.0 ms + 3 ms/MB + 1 ms/MB for each other server" in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no measured updates"),
        ("[]", "no measured updates"),
        ('{"format": "x"}', "format = 'x': expected 'areal-weight-transfer/1'"),
        ('{"format": "areal-weight-transfer/1", "about": {}, "updates": []}', "the list is empty"),
        ('{"format": "areal-weight-transfer/1", "about": {}, "updates": [{}]}', "loads_s"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.json"):
        load(path)
    assert main(["--from", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "nowhere.json"], "nowhere.json: cannot be read: No such file"),
        (["--sizes", "1M,3M"], "--sizes 3M: known: 1M, 8M, 26M, 72M, 199M"),
        (["--servers", "0"], "--servers 0: expected at least 1"),
        (["--bucket-bytes", "0"], "--bucket-bytes 0: expected at least 1"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"weight_transfer: {message}" + (
        " or directory\n" if "nowhere" in message else "\n"
    )


def test_the_guide_shows_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--from", str(MEASURED), "--markdown"]) == 0
    guide = (ROOT / "docs" / "guides" / "weight-transfer.md").read_text(encoding="utf-8")
    for line in capsys.readouterr().out.splitlines():
        assert line in guide
