"""The story that ``ggen demo`` plays."""
