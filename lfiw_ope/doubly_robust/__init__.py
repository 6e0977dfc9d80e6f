"""Doubly robust estimates: a value function, and what the log says of its errors."""
