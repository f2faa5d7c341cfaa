"""Data: the common form, its splits, the generated toy world, and one loader a public source."""
