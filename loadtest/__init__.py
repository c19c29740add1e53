"""Load and benchmarks, from outside: speaks HTTP only."""
