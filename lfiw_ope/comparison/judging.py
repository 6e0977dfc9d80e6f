"""Whether the data can tell the values of one fit: looked at once, when it is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lfiw_ope.answering import Fitted
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.diagnosis.concerns import concerns_of
from lfiw_ope.diagnosis.diagnose import diagnose
from lfiw_ope.diagnosis.record import Diagnosis
from lfiw_ope.errors import OPEError
from lfiw_ope.estimand import Estimand
from lfiw_ope.estimators.refitted import model_of
from lfiw_ope.refusal import Thresholds
from lfiw_ope.results import Estimate
from lfiw_ope.types import Policy, Progress


@dataclass(frozen=True)
class Judge:
    """Refuses estimates of one fit as `lfiw_ope.evaluation.evaluate` does.

    Attributes:
        thresholds: beyond which the data cannot tell.
        data: the log.
        policies: by name.
        estimand: what is estimated.
        fitted: what answers; where it is a model, its rollouts are looked at too.
        seed: of the fit.
        progress: told how far the look is.
    """

    thresholds: Thresholds
    data: Trajectories
    policies: Mapping[str, Policy]
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
    def _diagnoses(self) -> dict[str, Diagnosis]:
        return self._look(list(self.policies))

    def _look(self, names: Sequence[str]) -> dict[str, Diagnosis]:
        """At all in one call; where one cannot be diagnosed, at each alone."""
        try:
            found = diagnose(
                *(self.data, [self.policies[name] for name in names], self.estimand),
                fitted=model_of(self.fitted),
                seed=self.seed,
                progress=self.progress,
            )
            return dict(zip(names, found, strict=True))
        except OPEError:
            if len(names) == 1:
                return {}
        return {name: of for one in names for name, of in self._look([one]).items()}
