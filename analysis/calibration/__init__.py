"""Costs of a simulation, fitted to the journal of a real run."""
