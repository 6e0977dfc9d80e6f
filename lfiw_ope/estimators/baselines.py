"""Constants, which every estimator has to beat."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lfiw_ope.answering import Answering, Spaces, spaces_of
from lfiw_ope.behaviour_return import mean_return
from lfiw_ope.checks import device_there
from lfiw_ope.data.split import require_episodes
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.diagnostics import cut_short_warning
from lfiw_ope.estimand import Estimand
from lfiw_ope.intervals.bernstein import NO_GUARANTEE, bernstein, check_returns
from lfiw_ope.intervals.config import IntervalConfig, check_interval
from lfiw_ope.intervals.episodes import Told, episode_intervals, no_interval
from lfiw_ope.padding import PaddedEpisodes
from lfiw_ope.results import Estimate
from lfiw_ope.seeding import derive
from lfiw_ope.types import Policy, Progress, silent
from lfiw_ope.weighted import WeightedValue

OF_ANOTHER = no_interval(
    "The log tells how well its own mean return is known, and nothing of how far another policy's "
    "value is from it; where the policy is the behaviour itself, ask by interval=IntervalConfig()."
)


class BehaviourMean:
    """The behaviour's mean return, whatever the policy: no truth is used, and no policy either.

    v̂ = Σ_{t<T} γ^t · the mean reward at t, over logged episodes by their standing

    Where episodes were cut short, others stand for them (`lfiw_ope.padding`).

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
