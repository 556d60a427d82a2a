"""What runs are worth: losses, speed-ups, times to a target, and what follows from them; numpy on plain arrays."""
