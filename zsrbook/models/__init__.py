"""Models: one readable file a paper, plus the shared sequence encoders and the baselines."""
