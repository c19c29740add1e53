"""Mechanisms and what they are worth: the same auctions for all, each figure with its interval."""
