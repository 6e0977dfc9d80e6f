"""Whether the data can tell the values of one fit: looked at once, when it is asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lfiw_ope.answering import Fitted
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.diagnosis.concerns import concerns_of
from lfiw_ope.diagnosis.diagnose import diagnose, diagnose_model
from lfiw_ope.diagnosis.record import Diagnosis
from lfiw_ope.errors import OPEError
from lfiw_ope.estimand import Estimand
from lfiw_ope.estimators.refitted import model_of
from lfiw_ope.refusal import Thresholds
from lfiw_ope.results import Estimate
from lfiw_ope.types import Policy, Progress

Looked = dict[str, Diagnosis]
"""Diagnoses by policy, of those that can be diagnosed."""


@dataclass(frozen=True)
class Look:
    """What is known without a model, of one seed: fits that are judged one after another share it.

    Attributes:
        data: the log.
        policies: by name.
    """

    data: Trajectories
    policies: Mapping[str, Policy]
    _known: dict[tuple[Estimand, int], Looked] = field(default_factory=dict)

    def at(self, estimand: Estimand, seed: int, progress: Progress) -> Looked:
        """Of every policy, looked at where it is not known yet."""
        if (estimand, seed) not in self._known:

            def look(names: Sequence[str]) -> list[Diagnosis]:
                policies = [self.policies[name] for name in names]
                return diagnose(self.data, policies, estimand, seed=seed, progress=progress)

            self._known.clear()  # seeds come one after the other
            self._known[estimand, seed] = _each(list(self.policies), look)
        return self._known[estimand, seed]


@dataclass(frozen=True)
class Judge:
    """Refuses estimates of one fit as `lfiw_ope.evaluation.evaluate` does.

    Attributes:
        thresholds: beyond which the data cannot tell.
        look: what is known of log and policies without a model.
        estimand: what is estimated.
        fitted: what answers; where it is a model, its rollouts are looked at too.
        seed: of the fit.
        progress: told how far the look is.
    """

    thresholds: Thresholds
    look: Look
    estimand: Estimand
    fitted: Fitted
    seed: int
    progress: Progress

    def reasons(self, policy: str, estimate: Estimate) -> tuple[str, ...]:
        """Why the policy's estimate is refused; nothing where it is given.

        Of a policy that cannot be diagnosed, the estimate alone is judged.
        """
        found = self._diagnoses.get(policy) if concerns_of(estimate) else None
        return self.thresholds.reasons(estimate, found)

    @cached_property
    def _diagnoses(self) -> Looked:
        known = self.look.at(self.estimand, self.seed, self.progress)
        fitted = model_of(self.fitted)
        if fitted is None or not known:
            return known

        def look(names: Sequence[str]) -> list[Diagnosis]:
            return diagnose_model(
                [known[name] for name in names],
                self.look.data,
                [self.look.policies[name] for name in names],
                fitted,
                seed=self.seed,
                progress=self.progress,
            )

        return _each(list(known), look)


def _each(names: Sequence[str], look: Callable[[Sequence[str]], list[Diagnosis]]) -> Looked:
    """All in one call; where one cannot be diagnosed, each alone."""
    try:
        return dict(zip(names, look(names), strict=True))
    except OPEError:
        if len(names) == 1:
            return {}
    return {name: of for one in names for name, of in _each([one], look).items()}
