"""Named problems with known optima."""
