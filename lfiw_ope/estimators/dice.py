"""DICE: logged rewards weighted by the ratio of occupancies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lfiw_ope.answering import Answering
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import DataError
from lfiw_ope.estimand import Estimand, beyond_horizon, has_time
from lfiw_ope.occupancy.config import DICEConfig
from lfiw_ope.occupancy.fit import fit_dice
from lfiw_ope.results import Estimate
from lfiw_ope.seeding import derive
from lfiw_ope.types import Policy, Progress, silent


class DICE:
    """v̂(π) = E_D[ω r] / (1 − γ), or Σ_t γ^t E_{D_t}[ω_t r_t]: rewards by π's occupancy.

    ω is learned by `lfiw_ope.occupancy.fit.fit_dice` (Yang et al. 2020) and self-normalised. It
    needs neither densities nor a model, and no ratio is a product over steps. Every policy needs a
    training of its own, which happens in `estimate`; policies given together are trained together,
    for less than one after the other.

    Args:
        estimand: what is estimated.
        config: settings; the defaults where none are given.
        device: where it is fitted, such as "cpu" or "cuda"; in place of the configuration's.

    Raises:
        ConfigError: if the device is not there, or the configuration's time is "none" and nothing
            is discounted.
    """

    def __init__(
        self, estimand: Estimand, config: DICEConfig | None = None, *, device: str | None = None
    ) -> None:
        config = DICEConfig() if config is None else config
        self.estimand = estimand
        self.config = config if device is None else replace(config, device=device)
        has_time(estimand, self.config.time)

    def fit(self, data: Trajectories, seed: int, *, progress: Progress = silent) -> "FittedDICE":  # noqa: ARG002
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
                f"The data hold {data.num_episodes} episode; at least 2 are needed, because one "
                "does not tell what varies between episodes."
            )
        if data.repeats:
            raise DataError(
                "An episode stands in the data more than once, and would count as more than one: "
                "select each episode once."
            )
        return FittedDICE(self.estimand, self.config, data, int(seed))


@dataclass(frozen=True)
class FittedDICE(Answering):
    """A log, and how the ratios are to be fitted to it.

    There is no standard error: ω solves an equation on the very log whose rewards it weighs, and a
    spread of ω r over episodes would take it as given.

    `Estimate.diagnostics` has those of `lfiw_ope.occupancy.report.RatioReport`.

    Attributes:
        estimand: what is estimated.
        config: networks and training.
        data: the log.
        seed: of everything that is random.
    """

    estimand: Estimand
    config: DICEConfig
    data: Trajectories
    seed: int

    @property
    def spaces(self) -> tuple[int, int, Literal["continuous", "discrete"]]:
        return self.data.state_size, self.data.action_size, self.data.action_spec.kind

    def _answer(self, policies: Sequence[Policy], progress: Progress) -> list[Estimate]:
        if not policies:
            return []
        fitted = fit_dice(
            self.data, policies, self.estimand, self.config, self.seed, progress=progress
        )
        beyond = beyond_horizon(self.estimand, self.config.time)
        return [
            Estimate(
                estimator="DICE",
                estimand=self.estimand,
                value=float(value),
                seed=self.seed,
                diagnostics=report.diagnostics,
                seconds={"training": report.seconds},
                warnings=(*beyond, *report.warnings),
            )
            for value, report in zip(fitted.values, fitted.reports, strict=True)
        ]
