"""Where mixing belongs in a training pipeline: in workers, after the loader, or on what a bank has made before."""
