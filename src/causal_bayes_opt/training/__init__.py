"""Making, judging and deploying models."""
