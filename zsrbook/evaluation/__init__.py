"""How good a recommender is: ranks with ties, metrics a prediction at a time, intervals, and the protocol that they obey."""
