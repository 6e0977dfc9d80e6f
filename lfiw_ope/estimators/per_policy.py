"""Estimators that train networks for every policy: their settings, and the log they keep for it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from torch import Tensor

from lfiw_ope.core.estimand import Estimand, beyond_horizon, has_time
from lfiw_ope.core.protocols import Policy, Progress, silent
from lfiw_ope.core.seeding import derive
from lfiw_ope.core.validation import choice, device_there, widths
from lfiw_ope.data.split import require_episodes
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimators.base import Answering, Spaces, spaces_of
from lfiw_ope.nn.batched_mlp import ACTIVATIONS
from lfiw_ope.nn.training import FitConfig
from lfiw_ope.stats.estimate import Estimate
from lfiw_ope.stats.intervals import Uncertainty


@dataclass(frozen=True, kw_only=True)
class PerPolicyConfig:
    """Settings of an estimator that trains for every policy; see the estimators' own."""

    hidden: Sequence[int] = (64, 64)
    activation: str = "relu"
    time: Literal["auto", "input", "none"] = "auto"
    fit: FitConfig = field(default_factory=lambda: FitConfig(patience=None))
    device: str = "cpu"

    def __post_init__(self) -> None:
        widths("hidden", self.hidden)
        object.__setattr__(self, "hidden", tuple(self.hidden))
        choice("activation", self.activation, tuple(ACTIVATIONS))
        choice("time", self.time, ("auto", "input", "none"))
        device_there(self.device)


class Report(Protocol):
    """How the training for one policy went."""

    @property
    def diagnostics(self) -> Mapping[str, float]: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...

    @property
    def seconds(self) -> float: ...


class Trained(Protocol):
    """What the training for P policies gives."""

    @property
    def values(self) -> Tensor:
        """`[P]`"""
        ...

    @property
    def reports(self) -> Sequence[Report]:
        """P of them."""
        ...


Config = TypeVar("Config", bound=PerPolicyConfig)


class PerPolicyEstimator(ABC, Generic[Config]):
    """An estimator whose networks are a policy's own, so that `estimate` trains them.

    Policies given together are trained together, for less than one after the other.

    Args:
        estimand: what is estimated.
        config: settings; the defaults where none are given.
        device: where it is fitted, such as "cpu" or "cuda"; in place of the configuration's.

    Raises:
        ConfigError: if the device is not there, or the configuration's time is "none" and nothing
            is discounted.
    """

    label: ClassVar[str]
    default_config: type[Config]

    def __init__(
        self, estimand: Estimand, config: Config | None = None, *, device: str | None = None
    ) -> None:
        config = self.default_config() if config is None else config
        self.estimand = estimand
        self.config = config if device is None else replace(config, device=device)
        has_time(estimand, self.config.time)

    def fit(self, data: Trajectories, seed: int, *, progress: Progress = silent) -> "KeptLog":  # noqa: ARG002
        """Check the log and keep it: training needs a policy.

        Args:
            data: the log.
            seed: of everything that is random in `estimate`.
            progress: told nothing, as nothing takes long.

        Raises:
            DataError: if there are fewer than 2 episodes, or one stands in the data more than once.
            ConfigError: if the seed is not a whole number, 0 or more.
        """
        derive(seed)
        require_episodes(data, 2, "a single one does not tell what varies between episodes")
        return KeptLog(self, data, int(seed))

    @abstractmethod
    def train(
        self, data: Trajectories, policies: Sequence[Policy], seed: int, progress: Progress
    ) -> Trained:
        """Of one policy or more."""

    @abstractmethod
    def uncertainty(self, value: float, report: Any) -> Uncertainty:
        """What is known of the error of a policy's value, from how its training went."""

    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the settings, whatever the training gives."""
        return beyond_horizon(self.estimand, self.config.time)


@dataclass(frozen=True)
class KeptLog(Answering):
    """A log, and the estimator that trains on it once it is asked.

    Attributes:
        estimator: how.
        data: the log.
        seed: of everything that is random.
    """

    estimator: PerPolicyEstimator[Any]
    data: Trajectories
    seed: int

    @property
    def spaces(self) -> Spaces:
        return spaces_of(self.data)

    def _answer(self, policies: Sequence[Policy], progress: Progress) -> list[Estimate]:
        trained = self.estimator.train(self.data, policies, self.seed, progress)
        return [
            self._estimate(float(value), report)
            for value, report in zip(trained.values, trained.reports, strict=True)
        ]

    def _estimate(self, value: float, report: Report) -> Estimate:
        estimator = self.estimator
        error, told = estimator.uncertainty(value, report)
        return Estimate(
            estimator=estimator.label,
            estimand=estimator.estimand,
            value=value,
            seed=self.seed,
            standard_error=error,
            intervals=told.intervals,
            no_interval=told.no_interval,
            diagnostics=dict(report.diagnostics),
            seconds={"training": report.seconds},
            warnings=(*estimator.warnings(), *report.warnings),
        )
