"""Logged data and where they come from."""
