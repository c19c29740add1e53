"""The auction's rules as pure functions: ads, eligibility, order and price.

Knows nothing of HTTP, Redis, clocks or randomness; whatever varies is passed in.
"""
