"""The outer loop: trainers, and what a run keeps on the disk."""
