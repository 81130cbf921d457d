"""The reference page: it is made from both worlds, and current."""

from __future__ import annotations

import re
import subprocess
import sys

from areal_real.config import RealConfig
from areal_real.config.reference import reference_page as real_part
from areal_sched.config.options import options_of
from areal_sim.config import reference_page as simulated_part
from tests.real.config.cases import ROOT
from tests.sim.config_cases import all_tables

PAGE = ROOT / "docs" / "reference" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    (made_with,) = re.findall(
        r"^    (\(python -m .*) > docs/reference/configuration\.md$", page, re.M
    )
    assert page == simulated_part() + real_part(), f"make it again: {made_with}"
    made = subprocess.run(
        ["sh", "-c", made_with.replace("python", sys.executable)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert made == page


def test_the_page_has_every_key_of_a_real_run() -> None:
    page = real_part()
    for cls in all_tables(RealConfig):
        keys = [key for key, _, _ in options_of(cls)]
        if cls.TABLE.startswith("real"):
            _, _, rest = page.partition(f"## `[{cls.TABLE}]`")
            rows = re.findall(r"^\| `(.+?)` \|", rest.partition("\n## ")[0], re.MULTILINE)
            assert rows == keys
        elif cls.TABLE in ("cluster", "workload"):
            (line,) = re.findall(rf"^- `\[{cls.TABLE}\]`.*$", page, re.MULTILINE)
            assert re.findall(r"`(\w+)` \(", line) == keys
