"""How runs come about: jobs over a pool, each kept as soon as it is there, and what a step costs."""
