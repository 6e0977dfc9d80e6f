"""The occupancy ratio of target policies to a log: its equations, networks, training and checks."""
