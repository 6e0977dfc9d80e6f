"""Fitted Q evaluation: the networks, their targets, and whether they have settled."""
