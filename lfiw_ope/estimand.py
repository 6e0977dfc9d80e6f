"""What is being estimated."""

import math
from dataclasses import dataclass

from lfiw_ope.errors import ConfigError


@dataclass(frozen=True)
class Estimand:
    """The expected return of a policy over the first `horizon` steps.

    v(π) = E[ Σ_{t=0}^{T-1} γ^t r_t ],  s_0 ~ the logged initial distribution, a_t ~ π(· | s_t)

    A terminated episode earns nothing more; the reward of the terminating step counts. Every
    estimator takes the same object, so that two estimates compared are estimates of one thing.

    Attributes:
        horizon: T, in environment steps.
        discount: γ, in [0, 1]; 1 is undiscounted.

    Raises:
        ConfigError: if the horizon is not a positive whole number or the discount not in [0, 1].
    """

    horizon: int
    discount: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.horizon, bool) or not isinstance(self.horizon, int) or self.horizon < 1:
            raise ConfigError(
                f"The horizon is {self.horizon!r}; it must be a whole number of steps, 1 or more."
            )
        if not (math.isfinite(self.discount) and 0.0 <= self.discount <= 1.0):
            raise ConfigError(f"The discount is {self.discount!r}; it must lie in [0, 1].")
