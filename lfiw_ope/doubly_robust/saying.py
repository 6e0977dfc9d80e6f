"""What is said of a doubly robust value: its numbers and its warnings."""

from collections.abc import Iterable, Sequence

from lfiw_ope.doubly_robust.magic import Blend
from lfiw_ope.doubly_robust.terms import CorrectedValue
from lfiw_ope.estimand import Estimand
from lfiw_ope.intervals.config import IntervalConfig
from lfiw_ope.intervals.episodes import episode_intervals, no_interval
from lfiw_ope.results import Estimate
from lfiw_ope.weighted import LEAST_ESS_FOR_A_STANDARD_ERROR

BY_PRODUCTS = (
    "use MAGIC, which corrects as many steps as pay, an occupancy ratio (DICE, CorrectedModel), or "
    "more episodes"
)
"""What to do about weights that are products of policy ratios and rest on few episodes."""

BY_OCCUPANCY = "use a log that goes where the policy goes"

LEANS_ON_VALUE = (
    "MAGIC leans to the value function alone where it can, and how wrong that is does not show in "
    "any spread over episodes; wrap it in Refitted, which fits the value function again."
)
"""Why MAGIC has no interval of its own."""


def said_of(
    label: str,
    estimand: Estimand,
    seed: int,
    found: CorrectedValue,
    *,
    interval: IntervalConfig,
    advice: str,
    diagnostics: dict[str, float],
    seconds: dict[str, float],
    warnings: Sequence[str],
) -> Estimate:
    """The estimate of one policy; `diagnostics` and `warnings` are those of what it rests on."""
    some = found.ess_by_step > 0
    unweighted, episodes = int((~some).sum()), len(found.influence)
    ess = float(found.ess_by_step[some].min()) if some.any() else None
    said = list(warnings)
    if unweighted:
        said.append(
            f"At {unweighted} of {len(some)} steps no logged episode could be the policy's: there "
            f"{label} is the value function's word alone. Use a log that covers the policy's "
            "actions."
        )
    if ess is not None and ess < LEAST_ESS_FOR_A_STANDARD_ERROR:
        said.append(
            f"The weights of {label} rest on {ess:.1f} of {episodes} episodes at some step, so "
            f"what it corrects there means little and has no standard error: {advice}."
        )
    if interval.method == "none" and isinstance(found, Blend):
        told = no_interval(LEANS_ON_VALUE)
    else:
        told = episode_intervals(
            found.sums, standard_error=found.standard_error, config=interval, seed=seed
        )
    return Estimate(
        estimator=label,
        estimand=estimand,
        value=found.value,
        seed=seed,
        standard_error=found.standard_error,
        intervals=told.intervals,
        no_interval=told.no_interval,
        episodes=episodes,
        ess=ess,
        raw_ess=ess,
        ess_by_step=found.ess_by_step.numpy(),
        diagnostics={
            "direct": found.direct,
            "correction": found.value - found.direct,
            "unweighted_steps": float(unweighted),
            **diagnostics,
        },
        seconds=seconds,
        warnings=tuple(said),
    )


def value_warnings(folds: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Warnings of every fold's value function, told once where they are the same."""
    told = dict.fromkeys(text for of_fold in folds for text in of_fold)
    return tuple(f"Of the value function: {text}" for text in told)
