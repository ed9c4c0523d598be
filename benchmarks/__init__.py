"""Ours against torch's, in turn, next to what the machine can do: `python -m benchmarks --help`."""
