"""From rows to a posterior over the target's parent sets."""
