"""Fitted Q evaluation: the value of a learned Q at the logged initial states."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lfiw_ope.answering import Answering
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import DataError
from lfiw_ope.estimand import Estimand, beyond_horizon, has_time
from lfiw_ope.fitted_q.config import FQEConfig
from lfiw_ope.fitted_q.fit import fit_q
from lfiw_ope.results import Estimate
from lfiw_ope.seeding import derive
from lfiw_ope.types import Policy, Progress, silent


class FQE:
    """v̂(π) = mean over logged initial states of V̂_0(s), with Q̂ of `lfiw_ope.fitted_q.fit.fit_q`.

    Every policy needs a training of its own, which happens in `estimate`; policies given together
    are trained together, for less than one after the other.

    Args:
        estimand: what is estimated.
        config: settings; the defaults where none are given.
        device: where it is fitted, such as "cpu" or "cuda"; in place of the configuration's.

    Raises:
        ConfigError: if the device is not there, or the configuration's time is "none" and nothing
            is discounted.
    """

    def __init__(
        self, estimand: Estimand, config: FQEConfig | None = None, *, device: str | None = None
    ) -> None:
        config = FQEConfig() if config is None else config
        self.estimand = estimand
        self.config = config if device is None else replace(config, device=device)
        has_time(estimand, self.config.time)

    def fit(self, data: Trajectories, seed: int, *, progress: Progress = silent) -> "FittedFQE":  # noqa: ARG002
        """Check the log and keep it: training needs a policy.

        Args:
            data: the log.
            seed: of everything that is random in `estimate`.
            progress: told nothing, as nothing takes long.

        Raises:
            DataError: if there are too few episodes, or one stands in the data more than once.
            ConfigError: if the seed is not a whole number, 0 or more.
        """
        derive(seed)
        if data.num_episodes < 2:
            raise DataError(
                f"The data hold {data.num_episodes} episode; at least 2 are needed, because the "
                "members of the ensemble learn from samples of the episodes."
            )
        if data.repeats:
            raise DataError(
                "An episode stands in the data more than once, and would count as more than one: "
                "select each episode once."
            )
        return FittedFQE(self.estimand, self.config, data, int(seed))


@dataclass(frozen=True)
class FittedFQE(Answering):
    """A log, and how Q is to be fitted to it.

    `Estimate.diagnostics` has: `member_spread`, the standard deviation over members; `td_error`,
    the root mean squared TD error at the end, in units of value; `bounded_share`, of the
    bootstrapped values at the end those that rewards do not allow; `drift`, how far the value
    moved from the third to the last quarter of the training, and `wobble`, its standard deviation
    there; `updates`.

    Attributes:
        estimand: what is estimated.
        config: networks and training.
        data: the log.
        seed: of everything that is random.
    """

    estimand: Estimand
    config: FQEConfig
    data: Trajectories
    seed: int

    @property
    def spaces(self) -> tuple[int, int, Literal["continuous", "discrete"]]:
        return self.data.state_size, self.data.action_size, self.data.action_spec.kind

    def _answer(self, policies: Sequence[Policy], progress: Progress) -> list[Estimate]:
        if not policies:
            return []
        fitted = fit_q(
            self.data, policies, self.estimand, self.config, self.seed, progress=progress
        )
        beyond = beyond_horizon(self.estimand, self.config.time)
        return [
            Estimate(
                estimator="FQE",
                estimand=self.estimand,
                value=float(value),
                seed=self.seed,
                diagnostics=report.diagnostics,
                seconds={"training": report.seconds},
                warnings=(*beyond, *report.warnings),
            )
            for value, report in zip(fitted.values, fitted.reports, strict=True)
        ]
