"""Estimators: one file an idea."""
