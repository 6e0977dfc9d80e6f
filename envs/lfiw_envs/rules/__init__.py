"""Termination rules and exact rewards of environments, by id."""
