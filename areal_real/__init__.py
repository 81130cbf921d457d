"""The real back end: SGLang generates, Megatron-Core trains, the shared scheduler decides.

The only package that imports torch, sglang and megatron. It never meets `areal_sim`: a real run
and a simulated one meet in the journal.
"""
