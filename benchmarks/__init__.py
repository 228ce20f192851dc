"""Benchmarks: speed and accuracy, measured where the code runs."""
