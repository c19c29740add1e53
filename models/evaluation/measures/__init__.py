"""What outcomes are worth: pure functions from records to figures, each with its interval.

Intervals are 95 % percentile bootstraps over what was drawn independently (queries; of a sweep in
one query, its rows), with seeds passed in. Comparisons are paired: both sides are resampled
together.
"""
