"""Measurements: parts (`bench_*.py`, pytest-benchmark) and the whole trip against peers (`end_to_end`)."""
