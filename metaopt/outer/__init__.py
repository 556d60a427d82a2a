"""The outer loop of meta-training, its run directory and its checkpoints."""
