"""From a posterior to the next experiment."""
