"""Which weights an estimate uses: a record of what can be asked for, and what goes together."""

from dataclasses import dataclass
from typing import Literal

from lfiw_ope.checks import choice, real, whole
from lfiw_ope.errors import ConfigError
from lfiw_ope.resampling import Resampling
from lfiw_ope.weights import check_clip

POPULATIONS = 10
"""Of sequential Monte Carlo: enough to know their spread to a quarter."""

MOST_EXPONENT = 100.0


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """Which weights an estimate uses. The settings combine, and work in the order they stand in.

    Attributes:
        form: "uniform" weighs every rollout alike: the plain model, or with `candidates` the
            induced one; "trajectory" weighs a rollout's return by the product of its ratios;
            "stepwise" weighs the reward at t by the product up to and including t.
        candidates: k of sampling-importance-resampling: each step goes on from one of k draws,
            chosen in proportion to their ratios, and its ratio is then the k draws' mean. A
            weighted form carries that mean, "uniform" drops it.
        calibrated: choose candidates by a ratio whose moments were calibrated for this k
            (`lfiw_ope.ratio_moments`), with "uniform" alone.
        conditional: divide each ratio by its mean over K draws of the model at the same (s, a).
        clip: lowest and highest ratio of a step; 0 and infinity leave a side open.
        exponent: α, weights are w^α.
        first: H, ratios of the first H steps only; None is all of them. With exact ratios the
            target is then "true dynamics for H steps, the model afterwards", not the true value.
        first_ess: choose H for each policy as the longest that keeps an effective sample size of
            this share of the rollouts.
        resample_below: sequential Monte Carlo: rollouts are resampled in proportion to their
            weights when the effective sample size falls below this share.
        populations: independent ones that the rollouts of sequential Monte Carlo are cut into; the
            standard error comes from them.
        temper: lower the exponent until the effective sample size is this share of the rollouts:
            of the whole product, or at each step where stepwise.
        pareto: smooth the largest weights (PSIS), and report k̂.
        self_normalised: divide by the sum of the weights and not by their number.

    Raises:
        ConfigError: if a setting is out of its range, or two cannot go together.
    """

    form: Literal["uniform", "trajectory", "stepwise"] = "trajectory"
    candidates: int = 1
    calibrated: bool = False
    conditional: bool = False
    clip: tuple[float, float] | None = None
    exponent: float = 1.0
    first: int | None = None
    first_ess: float | None = None
    resample_below: float | None = None
    populations: int = POPULATIONS
    temper: float | None = None
    pareto: bool = False
    self_normalised: bool = True

    def __post_init__(self) -> None:
        choice("form", self.form, ("uniform", "trajectory", "stepwise"))
        whole("candidates", self.candidates, least=1)
        whole("populations", self.populations, least=1)
        real("exponent", self.exponent, least=0.0, most=MOST_EXPONENT)
        if self.first is not None:
            whole("first", self.first, least=0)
        for name in ("first_ess", "temper", "resample_below"):
            share = getattr(self, name)
            if share is not None:
                real(name, share, least=0.0, most=1.0)
        for name in ("calibrated", "conditional", "pareto", "self_normalised"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be True or False.")
        if self.clip is not None:
            _check_clip(self.clip)
        _refuse_contradictions(self)

    @property
    def needs_ratio(self) -> bool:
        """Whether it rests on a density ratio."""
        return self.form != "uniform" or self.candidates > 1

    @property
    def resampling(self) -> Resampling:
        """What of it happens while rollouts are simulated."""
        if self.resample_below is None:
            return Resampling(candidates=self.candidates)
        return Resampling(
            candidates=self.candidates,
            below=self.resample_below,
            populations=self.populations,
            conditional=self.conditional,
        )

    @property
    def label(self) -> str:
        """A short name for tables, such as "c-LFIW first 80"."""
        if self.form == "uniform":
            return "calibrated " * self.calibrated + self._sir if self._sir else "model"
        smc = self.resample_below is not None
        parts = [
            "c-" * self.conditional + ("SMC" if smc else "LFIW" if self._whole else "stepwise")
        ]
        if smc and not self._whole:
            parts.append("stepwise")
        if smc and self.resample_below != 0.5:
            parts.append(f"below {self.resample_below:g}")
        if self.populations != POPULATIONS:
            parts.append(f"of {self.populations} populations")
        if self._sir:
            parts.append(self._sir)
        if self.clip is not None:
            parts.append(f"clipped {self.clip[0]:g} to {self.clip[1]:g}")
        if self.exponent != 1.0:
            parts.append(f"α {self.exponent:g}")
        if self.first is not None:
            parts.append(f"first {self.first}")
        if self.first_ess is not None:
            parts.append(f"first by ESS {self.first_ess:g}")
        if self.temper is not None:
            parts.append(f"tempered {self.temper:g}")
        if self.pareto:
            parts.append("Pareto")
        if not self.self_normalised:
            parts.append("unnormalised")
        return " ".join(parts)

    @property
    def _sir(self) -> str:
        return f"SIR {self.candidates}" if self.candidates > 1 else ""

    @property
    def _whole(self) -> bool:
        return self.form == "trajectory"


def _check_clip(bounds: object) -> None:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ConfigError(
            f"clip is {bounds!r}; it must be a pair, the lowest and the highest ratio of a step, "
            "such as (0.1, 10)."
        )
    check_clip(*bounds)
    if not bounds[0] <= 1.0 <= bounds[1]:
        raise ConfigError(
            f"clip is {bounds!r}; it must hold 1, the ratio of a step that the model gets right "
            "and of every step after a rollout's end."
        )


SHAPING: dict[str, object] = {
    "conditional": False,
    "clip": None,
    "exponent": 1.0,
    "first": None,
    "first_ess": None,
    "temper": None,
    "pareto": False,
}
"""Settings that shape the weights of finished rollouts, and where each is off."""


def _refuse_contradictions(weighting: Weighting) -> None:
    """Settings of which one would undo or ignore the other.

    Raises:
        ConfigError: naming the two.
    """
    shaping = [name for name, off in SHAPING.items() if getattr(weighting, name) != off]
    smc = weighting.resample_below is not None
    reason = ""
    if weighting.populations != POPULATIONS and not smc:
        reason = (
            "populations is of sequential Monte Carlo, and resample_below is None, which is none."
        )
    elif weighting.first is not None and weighting.first_ess is not None:
        reason = "first and first_ess both say how long H is; give one of them."
    elif weighting.form == "uniform" and (shaping or smc):
        what = shaping[0] if shaping else "resample_below"
        reason = f"uniform weights leave nothing for {what} to work on; choose a weighted form."
    elif weighting.calibrated and (weighting.form != "uniform" or weighting.candidates == 1):
        reason = (
            'calibrated is of the form "uniform" with 2 or more candidates, and this is '
            f'"{weighting.form}" with {weighting.candidates}.'
        )
    elif weighting.candidates > 1 and weighting.conditional:
        reason = (
            "conditional normalisation divides by the mean that sampling-importance-resampling "
            "carries; choose one of them, or the uniform form to drop the mean."
        )
    elif smc and set(shaping) - {"conditional"}:
        reason = (
            f"sequential Monte Carlo has used the weights up while it simulates, so {shaping[-1]} "
            "has nothing to work on; leave one of them out."
        )
    if reason:
        raise ConfigError("These settings cannot go together: " + reason)
