"""Policies, and adapters to them."""
