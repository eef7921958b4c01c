"""``make base``: train the embedded base model from scratch. Run as ``python -m make.base``."""
