"""Benchmarks: each compares Hanse with the bare stack in the same run, never with a clock alone."""
