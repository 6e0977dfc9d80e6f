"""What is said of a doubly robust value: its numbers and its warnings."""

from collections.abc import Iterable, Sequence

from lfiw_ope.doubly_robust.terms import CorrectedValue, Terms
from lfiw_ope.estimand import Estimand
from lfiw_ope.results import Estimate
from lfiw_ope.weighted import LEAST_ESS_FOR_A_STANDARD_ERROR


def said_of(
    label: str,
    estimand: Estimand,
    seed: int,
    terms: Terms,
    found: CorrectedValue,
    *,
    diagnostics: dict[str, float],
    seconds: dict[str, float],
    warnings: Sequence[str],
) -> Estimate:
    """The estimate of one policy; `diagnostics` and `warnings` are those of what it rests on."""
    ess_by_step = terms.ess_by_step
    some = ess_by_step > 0
    ess = float(ess_by_step[some].min()) if some.any() else None
    return Estimate(
        estimator=label,
        estimand=estimand,
        value=found.value,
        seed=seed,
        standard_error=found.standard_error,
        episodes=len(terms.initial),
        ess=ess,
        raw_ess=ess,
        ess_by_step=ess_by_step.numpy(),
        diagnostics={
            "direct": found.direct,
            "correction": found.value - found.direct,
            "unweighted_steps": float(terms.unweighted_steps),
            **diagnostics,
        },
        seconds=seconds,
        warnings=(*warnings, *_of_weights(label, terms, ess)),
    )


def _of_weights(label: str, terms: Terms, ess: float | None) -> list[str]:
    said = []
    if terms.unweighted_steps:
        said.append(
            f"At {terms.unweighted_steps} of {terms.residual.shape[1]} steps no logged episode "
            f"could be the policy's: there {label} is the value function's word alone. Use a log "
            "that covers the policy's actions."
        )
    if ess is not None and ess < LEAST_ESS_FOR_A_STANDARD_ERROR:
        said.append(
            f"The weights of {label} rest on {ess:.1f} of {len(terms.initial)} episodes at some "
            "step, so what it corrects there means little and has no standard error: use MAGIC, "
            "which corrects as many steps as pay, an occupancy ratio (DICE, CorrectedModel), or "
            "more episodes."
        )
    return said


def value_warnings(folds: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Warnings of every fold's value function, told once where they are the same."""
    told = dict.fromkeys(text for of_fold in folds for text in of_fold)
    return tuple(f"Of the value function: {text}" for text in told)
