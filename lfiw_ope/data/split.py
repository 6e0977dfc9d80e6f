"""Which episodes are for what."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.core.errors import DataError
from lfiw_ope.core.seeding import numpy_generator
from lfiw_ope.core.serialization import counted
from lfiw_ope.data.trajectories import Trajectories

DIFFERENT = "models are fitted, stopped and scored on different episodes"

LEAST_SCORED = 3
"""Episodes that candidates are scored on: their standard error comes from differences of them."""


@dataclass(frozen=True)
class EpisodeSplit:
    """Episodes by what they are for. No episode is in two parts, but the classifiers' can be the
    dynamics', where each member of the dynamics leaves some out (`with_ratio_from_dynamics`).

    Attributes:
        dynamics: that the dynamics learn from.
        dynamics_held_out: that stop their training, and whose residuals are their noise.
        ratio: that the classifiers learn from.
        ratio_held_out: that stop and calibrate them.
        scored: that candidates of noise and weights are scored on.
    """

    dynamics: NDArray[np.int64]
    dynamics_held_out: NDArray[np.int64]
    ratio: NDArray[np.int64]
    ratio_held_out: NDArray[np.int64]
    scored: NDArray[np.int64]

    @property
    def unseen_by_dynamics(self) -> tuple[int, ...]:
        """Episodes that the dynamics are not trained on."""
        kept = (self.dynamics_held_out, self.ratio, self.ratio_held_out, self.scored)
        seen = set(self.dynamics.tolist())
        return tuple(int(one) for part in kept for one in part if int(one) not in seen)

    def with_ratio_from_dynamics(self) -> "EpisodeSplit":
        """The same with the dynamics' episodes for the ratio too, a fifth of them held out."""
        held_out = max(1, len(self.dynamics) // 5)
        return replace(
            self, ratio=self.dynamics[held_out:], ratio_held_out=self.dynamics[:held_out]
        )

    @classmethod
    def draw(
        cls, episodes: int, seed: int, ratio_share: float, scored_share: float = 0.0
    ) -> "EpisodeSplit":
        """A random split: shares for the ratio and for scoring, the rest for the dynamics.

        Of the dynamics' part a tenth is held out, of the ratio's a third, at least one episode
        each. The dynamics' parts come first, so that what they get depends on the shares alone.

        Raises:
            DataError: if there are too few episodes for one in each part.
        """
        needed = (4 if ratio_share > 0 else 2) + LEAST_SCORED * (scored_share > 0)
        if episodes < needed:
            raise DataError(
                f"The data hold {episodes} episodes; at least {needed} are needed, because "
                f"{DIFFERENT}."
            )
        order = numpy_generator(seed, "episodes").permutation(episodes)
        n_scored = 0
        if scored_share > 0:
            n_scored = max(LEAST_SCORED, round(scored_share * episodes))
        order, scored = np.split(order, [episodes - n_scored])
        for_ratio = 0
        if ratio_share > 0:
            for_ratio = min(max(round(ratio_share * episodes), 2), len(order) - 2)
        of_dynamics, of_ratio = np.split(order, [len(order) - for_ratio])
        held_out = max(1, len(of_dynamics) // 10)
        ratio_held_out = max(1, for_ratio // 3) if for_ratio else 0
        return cls(
            dynamics=of_dynamics[held_out:],
            dynamics_held_out=of_dynamics[:held_out],
            ratio=of_ratio[ratio_held_out:],
            ratio_held_out=of_ratio[:ratio_held_out],
            scored=scored,
        )


def require_episodes(data: Trajectories, least: int, why: str) -> None:
    """That there are so many episodes, each of them once.

    Args:
        data: the log.
        least: episodes.
        why: they are needed, for the message: "at least 5 are needed, because ...".

    Raises:
        DataError: if there are fewer, or one stands in the data more than once.
    """
    if data.num_episodes < least:
        raise DataError(
            f"The data hold {counted(data.num_episodes, 'episode')}; at least {least} are needed, "
            f"because {why}."
        )
    if data.repeats:
        raise DataError(
            "An episode stands in the data more than once; what is fitted and what is held out "
            "would share it: select each episode once."
        )
