"""The aligned language model: what it reads and writes, how it runs, how it is trained.

Knows nothing of HTTP, Redis or money.
"""
