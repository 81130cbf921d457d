"""Commands that measure this project: `python -m benchmarks.<name>`."""
