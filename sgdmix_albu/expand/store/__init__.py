"""The output folder: what was planned, what is there, what is left."""
