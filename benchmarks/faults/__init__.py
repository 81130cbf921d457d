"""Faults injected into real trainings, and whether the books still balance afterwards."""
