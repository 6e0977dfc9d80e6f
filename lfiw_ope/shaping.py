"""Cumulated log-ratios as a form of weights wants them: clipped, flattened, tempered, smoothed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lfiw_ope.pareto import pareto_smooth
from lfiw_ope.weighting import Weighting
from lfiw_ope.weights import (
    clip,
    cumulate,
    effective_sample_size,
    flatten,
    longest_first,
    require_finite,
    require_weights,
    temper,
)


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """Weights as a form wants them; `lfiw_ope.weighted.WeightedValue` says what the fields are."""

    log_weight: Tensor  # [n, T], or [n, 1] where every reward meets the whole product
    raw_ess: float
    exponent: float | None = None
    first: int | None = None
    pareto_k: float | None = None
    clipped_share: float | None = None


def shape(log_ratio: Tensor, weighting: Weighting, standing: Tensor, *, zeros: bool) -> Shaped:
    """Weights by ratio alone where they are seen, `[n, T]` or `[n, 1]`, and −∞ elsewhere."""
    n, seen = len(standing), standing > 0
    if weighting.form == "uniform":
        return Shaped(
            log_weight=_only(seen, torch.zeros_like(standing)),
            raw_ess=float(effective_sample_size(standing.log(), dim=0)),
        )
    check = require_weights if zeros else require_finite
    log_ratio = check(log_ratio, "log-ratios").double()
    clipped_share = exponent = pareto_k = None
    if weighting.clip is not None:
        within = clip(log_ratio, *weighting.clip)
        clipped_share = float((within != log_ratio).double().mean())
        log_ratio = within
    log_ratio = flatten(log_ratio, weighting.exponent)
    first = weighting.first
    if weighting.first_ess is not None:
        first = int(longest_first(log_ratio, max(1.0, weighting.first_ess * n)))
    kept = slice(-1, None) if weighting.form == "trajectory" else slice(None)
    raw = _only(seen, cumulate(log_ratio, weighting.first)[:, kept])
    raw_ess = float(effective_sample_size(raw + standing.log(), dim=0).min())
    log_weight = raw
    if first != weighting.first:
        log_weight = _only(seen, cumulate(log_ratio, first)[:, kept])
    if weighting.temper is not None:
        log_weight, exponent = _tempered(log_weight, seen.sum(0), weighting.temper)
    if weighting.pareto:
        smoothed = [pareto_smooth(column) for column in log_weight.T]
        log_weight = torch.stack([one.log_weight for one in smoothed], 1)
        pareto_k = max((one.shape for one in smoothed if one.shape is not None), default=None)
    return Shaped(
        log_weight=log_weight,
        raw_ess=raw_ess,
        exponent=exponent,
        first=first,
        pareto_k=pareto_k,
        clipped_share=clipped_share,
    )


def _only(seen: Tensor, log_weight: Tensor) -> Tensor:
    return torch.where(seen, log_weight, -torch.inf)


def _tempered(log_weight: Tensor, count: Tensor, share: float) -> tuple[Tensor, float]:
    """Weights that keep this share of those that are seen at each step, and the least exponent."""
    found, least = log_weight.clone(), 1.0
    for number in set(count.tolist()):
        alike = count == number
        tempered = temper(log_weight[:, alike], max(1.0, share * number), dim=0)
        found[:, alike] = tempered.log_weight
        least = min(least, float(tempered.exponent.min()))
    return found, least
