"""Aligning a language model to the mechanism's objective: warm start, then IRPO."""
