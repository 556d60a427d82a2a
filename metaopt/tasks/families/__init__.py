"""Task families, a module for each kind of inner problem."""
