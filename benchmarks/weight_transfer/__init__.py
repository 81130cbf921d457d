"""How long new weights take from a real trainer to real servers, and how long generation stands.

    python -m benchmarks.weight_transfer --out updates.json
    python -m benchmarks.weight_transfer --from updates.json

The parts are those of a run: SGLang, the trainer's process with its sending side, and the shipped
scheduler, which issues the loads, all servers at once or one after another. See
docs/guides/weight-transfer.md.
"""
