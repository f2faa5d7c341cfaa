"""What stands behind each table and figure: one module a paper, plus the command that runs and records them."""
