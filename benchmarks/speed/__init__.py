"""What mixing, masks and Grad-CAM cost, beside what else is used for it, in one run."""
