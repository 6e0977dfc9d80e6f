"""DICE: logged rewards weighted by the ratio of occupancies."""

from collections.abc import Sequence

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.intervals.episodes import no_interval
from lfiw_ope.intervals.members import Uncertainty
from lfiw_ope.occupancy.config import DICEConfig
from lfiw_ope.occupancy.fit import fit_dice
from lfiw_ope.occupancy.ratio import OccupancyRatio
from lfiw_ope.occupancy.report import RatioReport
from lfiw_ope.per_policy import PerPolicyEstimator
from lfiw_ope.types import Policy, Progress


class DICE(PerPolicyEstimator[DICEConfig]):
    """v̂(π) = E_D[ω r] / (1 − γ), or Σ_t γ^t E_{D_t}[ω_t r_t]: rewards by π's occupancy.

    ω is learned by `lfiw_ope.occupancy.fit.fit_dice` (Yang et al. 2020) and self-normalised. It
    needs neither densities nor a model, and no ratio is a product over steps.

    There is no standard error: ω solves an equation on the very log whose rewards it weighs, and a
    spread of ω r over episodes would take it as given; `Refitted` fits it again.
    `Estimate.diagnostics` has those of `lfiw_ope.occupancy.report.RatioReport`.

    The arguments are `lfiw_ope.per_policy.PerPolicyEstimator`'s.
    """

    label = "DICE"
    default_config = DICEConfig

    def train(
        self, data: Trajectories, policies: Sequence[Policy], seed: int, progress: Progress
    ) -> OccupancyRatio:
        return fit_dice(data, policies, self.estimand, self.config, seed, progress=progress)

    def uncertainty(self, value: float, report: RatioReport) -> Uncertainty:  # noqa: ARG002
        return Uncertainty(
            None,
            no_interval(
                "The ratio is learned on the very log that it weighs, so that the log's spread "
                "under it is not the estimate's; wrap it in Refitted, which fits it again."
            ),
        )
