"""The offline value of a policy while stable-baselines3 trains it.

    from lfiw_ope.sb3_callback import OfflineValue

This is the one module that needs stable-baselines3 to be imported, and `import lfiw_ope` leaves it
out.
"""

import math
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lfiw_ope.core.errors import ConfigError, DivergedError, PolicyError
from lfiw_ope.core.policy_batch import check_policy, probe
from lfiw_ope.core.runtime import needed
from lfiw_ope.core.validation import whole
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimators.base import Estimator, Fitted
from lfiw_ope.estimators.behaviour import BehaviourReturn
from lfiw_ope.policies.files import save_actor
from lfiw_ope.policies.mlp import MLPPolicy
from lfiw_ope.policies.sb3 import from_sb3
from lfiw_ope.stats.estimate import Estimate

with needed("OfflineValue needs stable-baselines3", extra="sb3"):
    from gymnasium.wrappers import NormalizeObservation
    from stable_baselines3.common.callbacks import BaseCallback


class Tracked(NamedTuple):
    """One estimate of a training.

    Attributes:
        timesteps: that the training had played, of all its environments.
        estimate: of the policy as it was then.
    """

    timesteps: int
    estimate: Estimate


class Best(NamedTuple):
    """The policy of a training that the log speaks best of.

    Attributes:
        timesteps: that the training had played.
        estimate: of this policy.
        policy: a copy, with the observation statistics of then.
    """

    timesteps: int
    estimate: Estimate
    policy: MLPPolicy

    def save(self, path: str | Path) -> Path:
        """As `lfiw_ope.save_actor` does."""
        return save_actor(self.policy, path)

    @property
    def rank(self) -> tuple[bool, float]:
        """By the lower end of the widest interval; below all that have one, by value."""
        found = self.estimate.intervals
        return bool(found), found[-1].low if found else self.estimate.value


class OfflineValue(BaseCallback):
    """Estimates from a fixed log what the policy in training is worth, again and again.

    Fits to the log once, when training starts. Then the policy is estimated before the first
    rollout, before each rollout that begins `every` or more steps after the last estimate, and
    when training ends; so no policy is estimated twice, and the last is the final one. As a child
    of an event, such as `EveryNTimesteps`, it estimates when the event does, and only then. All
    estimates share their random numbers, which makes their differences less noisy than they are
    themselves.

    What is known goes to the training's own logger and is written at once, at the step it is of,
    with what the training has recorded since it last wrote (as `EvalCallback` does):
    `offline/value`;
    `offline/low` and `offline/high`, the ends of the widest interval; `offline/standard_error`;
    `offline/ess`; `offline/warnings`, how many; `offline/seconds`, that it took;
    `offline/behaviour`, the log's mean return; and `offline/failures`, from the first one on.

    The training is the same with and without it: it reads weights and changes nothing, and draws
    from no random generator but its own. An environment in `VecNormalize` is a policy on
    standardised states, whose statistics are taken as they are at each estimate. The log is of
    observations and rewards as the environment gives them, before VecNormalize.

    LFIW and ModelBased simulate at each estimate; FQE, DICE and the doubly robust estimators train
    at each estimate.

    Args:
        data: the log.
        estimator: of the package or of your own; or what its `fit` gave, which is not fitted anew.
        every: environment steps between estimates, of all environments together.
        seed: of the fit and of the estimates; not used where a fit is given.
        deterministic: estimate the policy's mode, as `predict(deterministic=True)` acts.
        raise_errors: end the training by an estimate that fails. Otherwise it is a warning, once,
            and counted in `failures`. What cannot work at all is refused in any case, before the
            first step.
        verbose: 1 writes each estimate in words to the logger.

    Attributes:
        history: (timesteps, estimate) of this training; it begins anew with a training that does.
        failures: (timesteps, reason) of the estimates that failed.
        best: the policy with the highest lower end of an interval, or the highest value where no
            estimate has an interval; None before the first estimate.
        fitted: what the estimator's `fit` gave; None before training starts.
        behaviour: the log's mean return; None before the first estimate.

    Raises:
        ConfigError: if `every` or the seed is out of its range, or the estimator is none.
    """

    def __init__(
        self,
        data: Trajectories,
        estimator: Estimator | Fitted,
        *,
        every: int,
        seed: int = 0,
        deterministic: bool = False,
        raise_errors: bool = False,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if not isinstance(estimator, Estimator | Fitted):
            raise ConfigError(
                f"estimator is a {type(estimator).__name__}; expected an estimator, such as "
                "LFIW(Estimand(horizon=1000)), or what its fit gave."
            )
        self.data, self.estimator = data, estimator
        self.every = whole("every", every, least=1)
        self.seed = whole("The seed", seed, least=0)
        self.deterministic, self.raise_errors = deterministic, raise_errors
        self.history: list[Tracked] = []
        self.failures: list[tuple[int, str]] = []
        self.best: Best | None = None
        self.fitted: Fitted | None = None
        self.behaviour: BehaviourReturn | None = None
        self._last: int | None = None

    def _on_training_start(self) -> None:
        self._begin()

    def _begin(self) -> None:
        """Refuse what cannot work, then fit.

        Raises:
            PolicyError: if the policy is not one that can be taken over with all that it sees
                states through, or not one for the log.
            DataError, DivergedError: if the fit fails.
        """
        if any(self.training_env.env_is_wrapped(NormalizeObservation)):
            raise PolicyError(
                "The training's environment is in Gymnasium's NormalizeObservation, whose "
                "statistics the log's states have not gone through; use stable-baselines3's "
                "VecNormalize, which is taken into account."
            )
        policy = from_sb3(self.model, deterministic=self.deterministic)
        sizes = {"state_size": self.data.state_size, "action_size": self.data.action_size}
        check_policy(policy, **sizes, action_kind=self.data.action_spec.kind)
        probe(policy, torch.from_numpy(self.data.initial_states[:2]))
        if self.fitted is None:
            given = self.estimator
            self.fitted = given.fit(self.data, self.seed) if isinstance(given, Estimator) else given
        if self._last is not None and self.model.num_timesteps < self._last:
            self.history, self.failures, self.best, self._last = [], [], None, None

    def _on_rollout_start(self) -> None:
        # Between two rollouts the policy is whole, and not in the middle of its updates.
        now = self.model.num_timesteps
        if self.parent is None and (self._last is None or now - self._last >= self.every):
            self._track()

    def _on_step(self) -> bool:
        if self.parent is not None:  # an event that says when
            self._track()
        return True

    def _on_training_end(self) -> None:
        if self._last != self.model.num_timesteps:
            self._track()

    def _track(self) -> None:
        now = self.model.num_timesteps
        if self.fitted is None:  # of EvalCallback's two events one does not tell of the start
            self._begin()
        assert self.fitted is not None
        first, self._last = self._last is None, now
        started = time.perf_counter()
        try:
            policy = from_sb3(self.model, deterministic=self.deterministic)
            estimate = self.fitted.estimate(policy)
            if not math.isfinite(estimate.value):
                raise DivergedError(f"The estimate is {estimate.value}.")
        except Exception as error:
            # A policy or a log that an estimator cannot take shows with the first estimate.
            if self.raise_errors or (first and isinstance(error, ValueError)):
                raise
            self._fail(f"{type(error).__name__}: {error}")
        else:
            self.history.append(Tracked(now, estimate))
            found = Best(now, estimate, policy)
            if self.best is None or found.rank > self.best.rank:
                self.best = found
            self._record(estimate)
        self.logger.record("offline/seconds", time.perf_counter() - started)
        # As EvalCallback: at the step it is of, and not when the training next writes.
        self.logger.record("time/total_timesteps", now, exclude="tensorboard")
        self.logger.dump(now)

    def _fail(self, reason: str) -> None:
        now = self.model.num_timesteps
        if not self.failures:
            warnings.warn(
                f"The offline estimate at step {now} failed, and training goes on. {reason} "
                "Further failures are only counted, in `failures` and offline/failures.",
                RuntimeWarning,
                stacklevel=2,
            )
        self.failures.append((now, reason))
        self.logger.record("offline/failures", len(self.failures))

    def _record(self, estimate: Estimate) -> None:
        if self.behaviour is None:
            self.behaviour = BehaviourReturn.of(self.data, estimate.estimand)
        widest = estimate.intervals[-1] if estimate.intervals else None
        found: dict[str, Any] = {
            "value": estimate.value,
            "low": None if widest is None else widest.low,
            "high": None if widest is None else widest.high,
            "standard_error": estimate.noise,
            "ess": estimate.ess,
            "warnings": len(estimate.warnings),
            "behaviour": self.behaviour.mean,
            "failures": len(self.failures) or None,
        }
        for name, value in found.items():
            if value is not None:
                self.logger.record(f"offline/{name}", value)
        if self.verbose:
            self.logger.info(f"step {self.model.num_timesteps}: {estimate}")
