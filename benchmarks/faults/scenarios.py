"""All scenarios, in the order they are run.

Another engine's faults, such as a lost Ray node, are a `Scenario` of their own here: its
``around`` starts the cluster, its ``settings`` name the engine, and ``unable`` says where it cannot
be run.
"""

from __future__ import annotations

from benchmarks.faults.bench import Scenario
from benchmarks.faults.controller import CLOCK, CONTROLLER
from benchmarks.faults.damage import DAMAGE
from benchmarks.faults.disk import DISK
from benchmarks.faults.parts import REWARDS, SERVERS, TRAINER
from benchmarks.faults.wire import WIRE

SCENARIOS: list[Scenario] = [REWARDS, WIRE, CLOCK, DISK, TRAINER, CONTROLLER, DAMAGE, SERVERS]
