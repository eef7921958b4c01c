"""What only a GPU can tell: that results are the CPU's there, and what mixing and refining cost on one."""
