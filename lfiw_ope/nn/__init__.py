"""Batched networks and the one training loop."""
