"""Measures Chaski on this machine against its targets and against what people would build instead: `python -m benchmarks`.

Every benchmark starts its own PostgreSQL, Valkey, workers and provider sink in a temporary folder, runs subject and
yardstick in turn, verifies every row afterwards, and reports medians, ranges and ratios. Nothing imports this package.
"""
