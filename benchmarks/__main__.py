"""All benchmarks: ``make bench``."""

from __future__ import annotations

from benchmarks import packing, simulator

if __name__ == "__main__":
    packing.main()
    simulator.main()
