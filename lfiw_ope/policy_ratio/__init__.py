"""The ratio of the target's to the behaviour's likelihood of the logged actions."""
