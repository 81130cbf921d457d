"""Speed of the simulator and of packing: ``make bench``.

The others take longer, or need what is not part of the project. Each is a command of its own:

- ``planner``: the planner against its whole space, and against the paper's split;
- ``completion_curves``, ``phase_times``, ``weight_sync``, ``decode_steps``, ``trainer_mfu``: the
  cost models against measured cases, see ``docs/background/validation-measured.md``;
- ``soak``: whether a long real run holds ever more memory, descriptors or files, see
  ``docs/background/soak.md``.
"""

from __future__ import annotations

from benchmarks import packing, simulator

if __name__ == "__main__":
    packing.main()
    simulator.main()
