"""Which GPUs the processes of a run on this machine get."""

from __future__ import annotations

import pytest

from areal_real.placement.local import gpus_of
from areal_sched.errors import ConfigError


@pytest.mark.parametrize(
    ("visible", "given"),
    [(None, ["2", "3"]), ("4,5,6,7", ["6", "7"]), ("GPU-a, GPU-b,GPU-c,GPU-d", ["GPU-c", "GPU-d"])],
)
def test_gpus_are_those_that_may_be_used(
    visible: str | None, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_of(2, 2) == given
    assert gpus_of(0, 0) is None


@pytest.mark.parametrize("visible", ["", "0,1,2"])
def test_too_few_gpus_are_said(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ConfigError, match="the run needs at least 4"):
        gpus_of(2, 2)
