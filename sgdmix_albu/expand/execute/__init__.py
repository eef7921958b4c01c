"""Rows to files: a worker, and who lets it work."""
