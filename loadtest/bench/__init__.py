"""Benchmarks: `python -m loadtest.bench`, a part a module, results in `loadtest/RESULTS.md`."""
