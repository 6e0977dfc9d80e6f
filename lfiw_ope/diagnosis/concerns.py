"""Which parts of a diagnosis concern an estimate: what its number rests on."""

from typing import Literal

from lfiw_ope.results import Estimate

Concern = Literal["actions", "weights", "model"]

CONCERNS: tuple[Concern, ...] = ("actions", "weights", "model")
"""What the log has of the policy's actions, weights of logged episodes, a model's rollouts."""


def concerns_of(estimate: Estimate) -> frozenset[Concern]:
    """What an estimate rests on; nothing of the policy, where it is the log's own mean."""
    if estimate.rollouts is not None:
        return frozenset({"actions", "model"})
    if estimate.episodes is None:  # learned by regression, such as FQE and DICE
        return frozenset({"actions"})
    if estimate.ess is None:
        return frozenset()
    return frozenset({"actions", "weights"})
