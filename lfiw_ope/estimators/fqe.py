"""Fitted Q evaluation: the value of a learned Q at the logged initial states."""

from collections.abc import Sequence

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.fitted_q.config import FQEConfig, slow_to_reach
from lfiw_ope.fitted_q.fit import fit_q
from lfiw_ope.fitted_q.report import QReport
from lfiw_ope.fitted_q.value import FittedQ
from lfiw_ope.intervals.members import Uncertainty, member_intervals
from lfiw_ope.per_policy import PerPolicyEstimator
from lfiw_ope.types import Policy, Progress


class FQE(PerPolicyEstimator[FQEConfig]):
    """v̂(π) = mean over logged initial states of V̂_0(s), with Q̂ of `lfiw_ope.fitted_q.fit.fit_q`.

    `Estimate.diagnostics` has: `member_spread`, the standard deviation over members; `td_error`,
    the root mean squared TD error at the end, in units of value; `bounded_share`, of the
    bootstrapped values at the end those that rewards do not allow; `drift`, how far the value
    moved from the third to the last quarter of the training, and `wobble`, its standard deviation
    there; `updates`. The standard error and the intervals are of the members' spread
    (`lfiw_ope.intervals.members.member_intervals`).

    The arguments are `lfiw_ope.per_policy.PerPolicyEstimator`'s.
    """

    label = "FQE"
    default_config = FQEConfig

    def train(
        self, data: Trajectories, policies: Sequence[Policy], seed: int, progress: Progress
    ) -> FittedQ:
        return fit_q(data, policies, self.estimand, self.config, seed, progress=progress)

    def uncertainty(self, value: float, report: QReport) -> Uncertainty:
        return member_intervals(value, report.bootstrap_values, self.config.interval)

    def warnings(self) -> tuple[str, ...]:
        return (*super().warnings(), *slow_to_reach(self.estimand, self.config))
