"""The trainer: Megatron-Core on CPU or GPU, as a world of processes that takes commands.

The side of the run: `areal_real.training.world.TrainerWorld`, which imports no torch. The side of
the processes: `areal_real.training.worker`. Between them go JSON lines.
"""
