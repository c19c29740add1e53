"""Load, crashes and benchmarks, from outside: over HTTP, but for `stand_in`, which says why."""
