"""The benchmark: ladders, data sets, support, suites, leaderboard."""
