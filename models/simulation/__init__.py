"""A market to try auctions in: users who ask, ads with bids, and who clicks on what.

    nouns, objective     what everything here is made of, and what it is for
    world                people and their questions, by `questions` or by a model, `user_llm`
    auctions             drawn from a world: candidates, order, bids
    click_model, judge   simulated users, without and with a language model; `agreement` of both
    saved_world, outside a world in files, and ads and queries from elsewhere

Nothing here knows how an answer comes about; that is the mechanisms' business
(`models.evaluation`).
"""
