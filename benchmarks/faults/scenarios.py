"""All scenarios, in the order they are run."""

from __future__ import annotations

from benchmarks.faults.bench import Scenario
from benchmarks.faults.controller import CLOCK, CONTROLLER
from benchmarks.faults.damage import DAMAGE
from benchmarks.faults.disk import DISK
from benchmarks.faults.on_ray import RAY
from benchmarks.faults.parts import REWARDS, SERVERS, TRAINER
from benchmarks.faults.wire import WIRE

SCENARIOS: list[Scenario] = [REWARDS, WIRE, CLOCK, DISK, TRAINER, CONTROLLER, DAMAGE, SERVERS, RAY]
