"""Statistics of samples: scores of predictive distributions."""

from lfiw_ope.stats.scores import crps, energy_score

__all__ = ["crps", "energy_score"]
