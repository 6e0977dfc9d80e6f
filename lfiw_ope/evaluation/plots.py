"""Figures: each function draws on the axes it is given and returns them."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.evaluation.summary import Row, Score
from lfiw_ope.ratios.calibration import ReliabilityCurve, expected_calibration_error
from lfiw_ope.stats.estimate import Estimate

TRUTH, PLAIN, WEIGHTED = "#222222", "#d1733c", "#2f6f9f"
DIAGONAL = "lfiw_ope: calibrated"
"""The name that a reliability diagram's diagonal bears, so that curves share one."""


def new_figure(width: float, height: float) -> Any:
    """A figure in inches, without pyplot and its global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> Path:
    """Write a PNG under a temporary name and rename it: never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        figure.savefig(partial, dpi=130, format="png")
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def plot_histogram(ax: Any, values: NDArray[Any], label: str) -> Any:
    """Episodes by a quantity that each has one of; those that are not finite are left out."""
    kept = np.asarray(values, float)
    kept = kept[np.isfinite(kept)]
    ax.hist(kept, bins=min(40, max(1, np.unique(kept).size)), color=WEIGHTED)
    ax.set_xlabel(label)
    ax.set_ylabel("episodes")
    return ax


def plot_returns(ax: Any, estimate: Estimate, logged: NDArray[np.float64]) -> Any:
    """Weighted returns of the target beside the logged returns of the behaviour."""
    found = estimate.distribution
    whose = "logged, weighted" if estimate.rollouts is None else "simulated"
    edges = np.histogram_bin_edges(np.concatenate((found.returns, logged)), bins=40)
    for returns, share, colour, label in (
        (logged, np.full(len(logged), 1 / len(logged)), "#888888", "logged, behaviour"),
        (found.returns, found.weights, WEIGHTED, f"{whose}, {estimate.estimator}"),
    ):
        ax.hist(returns, edges, weights=share, color=colour, alpha=0.6, label=label)
    ax.set_xlabel("return over the horizon")
    ax.set_ylabel("share of episodes")
    ax.legend(frameon=False, fontsize=8)
    return ax


def plot_state_ranges(ax: Any, states: NDArray[np.float32], most: int = 100_000) -> Any:
    """Each state entry's 1 to 99 % range, and its median, over some of the states `[·, S]`."""
    some = states[:: max(1, len(states) // most)].astype(float)
    some[~np.isfinite(some)] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of an entry that is NaN throughout
        low, middle, high = np.nanquantile(some, (0.01, 0.5, 0.99), axis=0)
    entries = np.arange(states.shape[1])
    ax.vlines(entries, low, high, color=WEIGHTED, lw=2)
    ax.plot(entries, middle, ls="", marker=".", color=TRUTH, ms=4)
    largest = np.maximum(np.abs(low), np.abs(high))
    varied = largest[largest > 0]
    if varied.size and np.nanmax(varied) > 100 * np.nanmedian(varied):
        ax.set_yscale("symlog")  # one entry in the thousands would flatten all the others
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("state entry")
    ax.set_ylabel("1 to 99 % range, and median")
    return ax


def plot_estimates(
    ax: Any,
    estimates: Sequence[Estimate],
    *,
    names: Sequence[str] | None = None,
    truth: tuple[float, float] | None = None,
    behaviour: float | None = None,
) -> Any:
    """Estimates beside the truth, one a row, with twice the standard error that they know.

    An interval, the widest that an estimate has, is a pale bar.

    Args:
        ax: matplotlib axes.
        estimates: top to bottom.
        names: of the rows; the estimators' own if None.
        truth: measured value and its standard error.
        behaviour: the log's mean return.
    """
    rows = np.arange(len(estimates))[::-1]
    for row, estimate in zip(rows, estimates, strict=True):
        plain = estimate.estimator == "model" or estimate.fell_back
        colour = PLAIN if plain else WEIGHTED
        # A weighted value that rests on a handful of returns is drawn hollow.
        hollow = estimate.noise is None
        for interval in estimate.intervals[-1:]:
            ends = (interval.low, interval.high)
            ax.plot(ends, (row, row), color=colour, alpha=0.25, lw=6, solid_capstyle="butt")
        ax.errorbar(
            estimate.value,
            row,
            xerr=2 * (estimate.noise or 0.0),
            fmt="o",
            color=colour,
            markerfacecolor="white" if hollow else colour,
            capsize=3,
        )
    if truth is not None:
        ax.axvspan(truth[0] - 2 * truth[1], truth[0] + 2 * truth[1], color=TRUTH, alpha=0.15, lw=0)
        ax.axvline(truth[0], color=TRUTH, lw=1.5, label="truth")
    if behaviour is not None:
        ax.axvline(behaviour, color="#888888", lw=1.2, ls="--", label="behaviour's mean return")
    ax.set_yticks(rows, names or [estimate.label for estimate in estimates])
    ax.set_ylim(-0.7, len(estimates) - 0.3)
    ax.set_xlabel(
        "value (line: ± 2 standard errors of sampling,\nhollow: not known; band: interval)"
    )
    if truth is not None or behaviour is not None:
        ax.legend(frameon=False, fontsize=8, loc="best")
    return ax


def plot_returns_so_far(
    ax: Any, returns: NDArray[np.float64], *, value: float | None = None, shown: int = 25
) -> Any:
    """Returns of episodes up to each step: the first ones, and the mean of all.

    Args:
        ax: matplotlib axes.
        returns: `[n, T]`, Σ_{u<=t} γ^u r_u.
        value: expected return of the whole horizon.
        shown: episodes that are drawn.
    """
    steps = np.arange(1, returns.shape[1] + 1)
    ax.plot(steps, returns[:shown].T, color=WEIGHTED, lw=0.8, alpha=0.4)
    ax.plot(steps, returns.mean(0), color=TRUTH, lw=2, label=f"mean of {len(returns)} episodes")
    if value is not None:
        ax.axhline(value, color=TRUTH, lw=1, ls="--", label="true value")
    ax.set_xlabel("step")
    return ax


def plot_ess(ax: Any, estimates: Sequence[Estimate]) -> Any:
    """Effective sample size against the step, for estimates whose weights differ by step."""
    for estimate in estimates:
        if estimate.ess_by_step is None:
            continue
        steps = np.arange(1, len(estimate.ess_by_step) + 1)
        ax.plot(steps, estimate.ess_by_step, lw=1.5, label=estimate.estimator)
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("effective sample size")
    ax.legend(frameon=False, fontsize=8)
    return ax


def plot_weights(ax: Any, estimate: Estimate) -> Any:
    """Log-weight, relative to equal weights, against the return, one dot a rollout."""
    found = estimate.distribution
    relative = found.log_weights + np.log(len(found.returns))
    ax.scatter(found.returns, relative, s=6, color=WEIGHTED, alpha=0.5, lw=0)
    ax.axhline(0.0, color="#888888", lw=1, ls="--")
    ax.set_xlabel("return")
    ax.set_ylabel(f"log(weight × n), {estimate.estimator}")
    return ax


def plot_reliability(
    ax: Any, curve: ReliabilityCurve, label: str | None = None, color: str = WEIGHTED
) -> Any:
    """Predicted probability against the observed share, one dot a bin, its area by its samples.

    On the diagonal probabilities mean what they say; a curve that is flatter than it is
    over-confident, a steeper one under-confident. Bars are two standard errors long either way: a
    dot whose bar meets the diagonal is off by what chance does. The axes show the range that is
    met, and 1/2: of a good model that is a small part of [0, 1].

    Args:
        ax: matplotlib axes.
        curve: of a `ClassifierReport`, or `ReliabilityCurve.of`. Several can share the axes.
        label: of the curve in the legend, before its expected calibration error.
        color: of the curve.
    """
    if not any(line.get_gid() == DIAGONAL for line in ax.lines):
        line = ax.axline((0.5, 0.5), slope=1.0, color=TRUTH, lw=1, ls="--", label="calibrated")
        line.set_gid(DIAGONAL)
    predicted, count = np.array(curve.predicted), np.array(curve.count)
    noise = 2 * np.array(curve.standard_error)
    ax.errorbar(predicted, curve.observed, noise, color=color, lw=1, elinewidth=0.6)
    error = f"calibration error {expected_calibration_error(curve):.3f}"
    text = error if label is None else f"{label}: {error}"
    area = 40 * count / count.mean()
    ax.scatter(predicted, curve.observed, s=area, color=color, label=text, zorder=3)
    ax.autoscale()
    limits = np.clip([*ax.get_xlim(), *ax.get_ylim()], 0.0, 1.0)
    ax.set_xlim(limits.min(), limits.max())
    ax.set_ylim(limits.min(), limits.max())
    ax.set_aspect("equal")
    ax.set_xlabel("predicted probability")
    ax.set_ylabel("observed share")
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    return ax


COLOURS = ("#2f6f9f", "#d1733c", "#4f8f4f", "#8a5a9e", "#b03a48", "#6b6b6b", "#b8932f", "#3a9c9c")
MARKERS = "osD^vP*X"


def plot_against_truth(ax: Any, rows: Sequence[Row]) -> Any:
    """Estimates against true values, a colour an estimator; on the diagonal they agree.

    Bars are 95 % intervals, where there are any. Estimators stand a little beside each other, up to
    2 % of the range of true values, and the legend counts what each could not answer.
    """
    shown = [row for row in rows if row.answer is not None and row.truth is not None]
    truths = [row.truth for row in shown if row.truth is not None]
    names = list(dict.fromkeys(row.estimator for row in rows))
    apart = 0.02 * (max(truths) - min(truths)) if truths else 0.0
    for index, name in enumerate(names):
        mine = [row for row in shown if row.estimator == name]
        colour, marker = style(index)
        shift = apart * (2 * (index + 0.5) / len(names) - 1)
        ax.plot([], [], ls="", marker=marker, color=colour, ms=5, label=_counted(name, rows))
        _points(ax, mine, [(row.truth or 0.0) + shift for row in mine], colour, marker)
    if truths:
        ax.axline((truths[0], truths[0]), slope=1, color=TRUTH, lw=1, ls="--")
    ax.set_xlabel("true value")
    ax.set_ylabel("estimate")
    _legend(ax)
    return ax


def plot_values(ax: Any, rows: Sequence[Row]) -> Any:
    """Estimates by policy, a colour an estimator and a dot a seed; bars are 95 % intervals."""
    policies = list(dict.fromkeys(row.policy for row in rows))
    names = list(dict.fromkeys(row.estimator for row in rows))
    for index, name in enumerate(names):
        mine = [row for row in rows if row.estimator == name and row.answer is not None]
        shift = 0.6 * ((index + 0.5) / len(names) - 0.5)
        colour, marker = style(index)
        ax.plot([], [], ls="", marker=marker, color=colour, ms=5, label=_counted(name, rows))
        _points(ax, mine, [policies.index(row.policy) + shift for row in mine], colour, marker)
    ax.set_xticks(range(len(policies)), policies)
    if len(policies) > 4:
        ax.tick_params("x", rotation=30)
    ax.set_xlim(-0.6, len(policies) - 0.4)
    ax.set_ylabel("estimate")
    _legend(ax)
    return ax


def plot_errors(ax: Any, rows: Sequence[Row]) -> Any:
    """Mean absolute error by estimator: a dot a seed, over policies, and a bar for their mean."""
    names = list(dict.fromkeys(row.estimator for row in rows))
    places = np.arange(len(names))[::-1]
    for place, name in zip(places, names, strict=True):
        errors: dict[int, list[float]] = {}
        for row in rows:
            if row.estimator == name and row.answer is not None and row.truth is not None:
                errors.setdefault(row.seed, []).append(abs(row.answer - row.truth))
        means = [float(np.mean(of)) for of in errors.values()]
        if means:
            ax.barh(place, np.mean(means), color=WEIGHTED, alpha=0.35, height=0.6)
            ax.plot(means, np.full(len(means), place), ls="", marker="o", ms=4, color=WEIGHTED)
    _by_estimator(ax, places, [_counted(name, rows) for name in names])
    ax.set_xlim(left=0)
    ax.set_xlabel("mean absolute error (dots: seeds)")
    return ax


def plot_scores(ax: Any, scores: Sequence[Score]) -> Any:
    """One metric by estimator, such as the rank correlation, with its bootstrap interval."""
    places = np.arange(len(scores))[::-1]
    for place, score in zip(places, scores, strict=True):
        if score.value is None:
            ax.text(0.0, place, " undefined", va="center", fontsize=8, color="#888888")
            continue
        ax.barh(place, score.value, color=WEIGHTED, alpha=0.35, height=0.6)
        if score.low is not None and score.high is not None:
            ax.plot([score.low, score.high], [place, place], color=WEIGHTED, lw=2)
        ax.plot([score.value], [place], marker="o", ms=5, color=WEIGHTED)
    ax.axvline(0.0, color=TRUTH, lw=0.8)
    _by_estimator(ax, places, [score.estimator for score in scores])
    metrics = dict.fromkeys(score.metric for score in scores)
    ax.set_xlabel(f"{', '.join(metrics)} (lines: bootstrap interval)")
    return ax


def _points(ax: Any, rows: Sequence[Row], x: Sequence[Any], colour: str, marker: str) -> None:
    for place, row in zip(x, rows, strict=True):
        if row.low is not None and row.high is not None:
            ax.plot([place, place], [row.low, row.high], color=colour, lw=1, alpha=0.5)
    ax.plot(x, [row.answer for row in rows], ls="", marker=marker, color=colour, ms=4, alpha=0.8)


def _counted(name: str, rows: Sequence[Row]) -> str:
    """An estimator's name, and what it answered where that is not all."""
    mine = [row for row in rows if row.estimator == name]
    answered = sum(row.answer is not None for row in mine)
    return name if answered == len(mine) else f"{name} ({answered} of {len(mine)})"


def style(index: int) -> tuple[str, str]:
    """A colour and a marker, of which no two of the first 64 have both in common."""
    return COLOURS[index % len(COLOURS)], MARKERS[(index // len(COLOURS) + index) % len(MARKERS)]


def _by_estimator(ax: Any, places: Any, names: Sequence[str]) -> None:
    ax.set_yticks(places, names)
    ax.set_ylim(-0.7, len(names) - 0.3)


def _legend(ax: Any) -> None:
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
