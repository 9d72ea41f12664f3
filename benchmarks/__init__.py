"""Measures servers that speak the confirm protocol, and compares the reports: ``python -m benchmarks``."""
