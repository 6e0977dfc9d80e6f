"""The log's mean return, and other constants that every estimator has to beat."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.protocols import Policy, Progress, silent
from lfiw_ope.core.seeding import derive
from lfiw_ope.core.validation import device_there
from lfiw_ope.data.censoring import PaddedEpisodes, known_steps
from lfiw_ope.data.split import require_episodes
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimators.base import Answering, Spaces, spaces_of
from lfiw_ope.estimators.warnings import cut_short_warning
from lfiw_ope.stats.bernstein import NO_GUARANTEE, bernstein, check_returns
from lfiw_ope.stats.estimate import Estimate
from lfiw_ope.stats.intervals import (
    IntervalConfig,
    Told,
    check_interval,
    episode_intervals,
    no_interval,
)
from lfiw_ope.stats.weighted_mean import WeightedValue, weigh
from lfiw_ope.stats.weighting import Weighting


@dataclass(frozen=True)
class BehaviourReturn:
    """The mean return of the policy that made the log; `lfiw_ope.data.censoring` has the
    convention.

    v(μ) = Σ_{t<T} γ^t · the mean reward at t, over episodes by their standing

    Attributes:
        mean: over the estimand's horizon, discounted, as far as the log goes.
        standard_error: of the mean, over episodes; None where a step is observed in only one, or
            fewer than ten effective ones stand for the others.
        episodes: N.
        cut_short: episodes whose log ends before the horizon without a terminal state.
        steps: of the horizon that the log knows; after them its longest episodes were cut.
    """

    mean: float
    standard_error: float | None
    episodes: int
    cut_short: int
    steps: int

    @classmethod
    def of(cls, data: Trajectories, estimand: Estimand) -> "BehaviourReturn":
        steps = known_steps(data, estimand.horizon)
        found = mean_return(PaddedEpisodes.of(data, steps), estimand.discount)
        cut = (data.lengths < estimand.horizon) & ~data.terminated
        return cls(found.value, found.mc_standard_error, data.num_episodes, int(cut.sum()), steps)


def mean_return(padded: PaddedEpisodes, discount: float) -> WeightedValue:
    """The behaviour's own return: each step's mean reward over episodes, by their standing."""
    equal = torch.zeros_like(padded.rewards)
    return weigh(
        padded.discounted(discount),
        equal,
        Weighting(form="stepwise"),
        standing=padded.standing,
        keep_sums=True,
    )


OF_ANOTHER = no_interval(
    "The log tells how well its own mean return is known, and nothing of how far another policy's "
    "value is from it; where the policy is the behaviour itself, ask by interval=IntervalConfig()."
)


class BehaviourMean:
    """The behaviour's mean return, whatever the policy: no truth is used, and no policy either.

    v̂ = Σ_{t<T} γ^t · the mean reward at t, over logged episodes by their standing

    Where episodes were cut short, others stand for them (`lfiw_ope.data.censoring`).

    It is right for policies as good as the one that was logged, and a table without it does not
    show what was gained by estimating.

    Args:
        estimand: what is estimated.
        interval: how intervals are made, of the behaviour's own value; none where none is asked
            for, as nothing is known of how far another policy's value is from it.
        device: accepted as of every estimator; nothing here takes one.

    Raises:
        ConfigError: if the device is not there, or the interval's settings are of another class.
    """

    def __init__(
        self,
        estimand: Estimand,
        *,
        interval: IntervalConfig | None = None,
        device: str | None = None,
    ) -> None:
        if device is not None:
            device_there(device)
        self.estimand = estimand
        if interval is not None:
            check_interval(interval)
        self.interval = interval

    def fit(
        self, data: Trajectories, seed: int, *, progress: Progress = silent
    ) -> "FittedBehaviourMean":
        """The log's mean return.

        Raises:
            DataError: if there are fewer than 2 episodes, or one stands there twice, or the
                longest were cut short of the horizon, or a return lies outside the interval's
                return_range.
        """
        derive(seed, "behaviour mean")  # nothing is random, and a bad seed is one all the same
        require_episodes(data, 2, "a single one has no standard error")
        started = time.perf_counter()
        padded = PaddedEpisodes.of(data, self.estimand.horizon)
        found = mean_return(padded, self.estimand.discount)
        told = self._intervals(padded, found, seed)
        whole = padded.observed[:, -1]
        progress("behaviour mean", 1, 1)
        return FittedBehaviourMean(
            Estimate(
                estimator="behaviour mean",
                estimand=self.estimand,
                value=found.value,
                standard_error=found.mc_standard_error,
                intervals=told.intervals,
                no_interval=told.no_interval,
                seed=int(seed),
                episodes=data.num_episodes,
                diagnostics={"cut_short": float(padded.cut_short)},
                seconds={"behaviour mean": time.perf_counter() - started},
                warnings=tuple(
                    cut_short_warning(padded.cut_short, data.num_episodes, stepwise=True)
                ),
                returns=padded.discounted(self.estimand.discount).sum(1)[whole].numpy(),
                log_weights=found.log_weights[whole].numpy(),
            ),
            spaces_of(data),
        )

    def _intervals(self, padded: PaddedEpisodes, found: WeightedValue, seed: int) -> Told:
        if self.interval is None:
            return OF_ANOTHER
        returns = padded.discounted(self.estimand.discount).sum(1)
        check_returns(returns, self.interval)
        if self.interval.method == "bernstein":
            if padded.cut_short:
                return no_interval(NO_GUARANTEE)
            return bernstein(returns.numpy(), self.interval)
        assert found.sums is not None
        return episode_intervals(
            found.sums,
            standard_error=found.mc_standard_error,
            config=self.interval,
            seed=seed,
        )


@dataclass(frozen=True)
class FittedBehaviourMean(Answering):
    """One number for any policy.

    Attributes:
        constant: the answer.
        data_spaces: S, A and the kind of actions, of the data.
    """

    constant: Estimate
    data_spaces: Spaces

    @property
    def spaces(self) -> Spaces:
        return self.data_spaces

    def _answer(self, policies: Sequence[Policy], progress: Progress) -> list[Estimate]:  # noqa: ARG002
        return [replace(self.constant) for _ in policies]
