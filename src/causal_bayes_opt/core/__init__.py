"""What a causal system and its data are."""
