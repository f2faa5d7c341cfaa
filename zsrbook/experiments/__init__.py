"""What stands behind each table and figure: modules for each paper, what these share, and the command that runs and records them."""
