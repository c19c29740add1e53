"""A market to try auctions in: users who ask, ads with bids, and who clicks on what.

`nouns` is what everything else here is made of. Nothing here knows how an answer comes about; that
is the mechanisms' business (`models.evaluation`).
"""
