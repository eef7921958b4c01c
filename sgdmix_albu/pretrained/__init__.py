"""Networks that others trained: fetched at a pinned commit, their settings checked, loaded from safetensors alone."""
