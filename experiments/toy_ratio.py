"""A mixture, a mis-fitted Gaussian, and the density ratio that mends it; everything known exactly.

    python experiments/toy_ratio.py             # about three minutes on one core
    python experiments/toy_ratio.py --redraw    # the figure alone, of the numbers that are stored

The target p is a mixture of two Gaussians. The model p_θ is one Gaussian whose mean is off and
whose scale is a quarter too large, so that it covers the target. A classifier learns their ratio
from samples alone, and the study holds against the truth:

* the learned log-ratio, on fresh samples; and one of classifiers that were trained on 50 samples of
  either side for too long, before and after calibration on 50 others;
* expectations under p from weighted draws of p_θ, as draws grow;
* samples of the induced model by sampling-importance-resampling (SIR), as candidates grow.

What calibration does and does not do: in all 5 seeds it lowers the over-trained classifiers'
log-loss and expected calibration error. The r.m.s. error of their log-ratio under the model gets
worse in 2 of the 5, seeds 0 and 4: a temperature that suits most samples flattens the tails, where
the model draws and data are few. And a learned ratio sets a floor to SIR: past some 20 candidates
more of them hardly bring its samples nearer to the target, where the exact ratio's still near it.

In D dimensions p is that mixture along the first axis and N(0, 1) along the others, and the model
is a quarter too wide along each. A seed is that of data, classifiers and draws. Written to
`experiments/results/toy_ratio.json` and `.png`.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from scipy.stats import norm, wasserstein_distance
from torch import Tensor
from torch.distributions import Normal

import lfiw_ope as ope
from lfiw_ope.core import torch_generator, write_text
from lfiw_ope.evaluation import PLAIN, TRUTH, WEIGHTED, new_figure, save_figure
from lfiw_ope.ratios import ReliabilityCurve, expected_calibration_error, log_loss

RESULTS = Path(__file__).parent / "results" / "toy_ratio"
SHARES, MEANS, SCALES = (0.4, 0.6), (-1.6, 1.4), (0.5, 0.7)
SHIFT, WIDER = 0.3, 1.25
TAIL = 2.5

DATA = 10_000  # samples of the target that the ratio is learned from
FRESH = 100_000  # that it is judged on
DRAWS = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
REPEATS = 5  # of every expectation, for each seed
CANDIDATES = (1, 2, 5, 20, 100)
SAMPLES = 10_000  # for each number of candidates and each seed
DIMENSIONS = (1, 4, 16)

LEARNED = ope.ClassifierConfig(
    members=3,
    hidden=(64, 64),
    fit=ope.FitConfig(updates=2000, learning_rate=3e-3, evaluate_every=100),
)
FEW = 100
TOO_LONG = ope.ClassifierConfig(
    members=3,
    hidden=(128, 128),
    activation="relu",
    fit=ope.FitConfig(
        updates=2000,
        batch_size=32,
        learning_rate=5e-3,
        schedule="constant",
        evaluate_every=2000,
        patience=None,
    ),
)
"""Looks at the held-out loss at the last update alone: nothing stops it."""

LogRatio = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Target:
    """The mixture along the first of D axes, N(0, 1) along the others."""

    dimension: int = 1

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        x = torch.randn((count, self.dimension), generator=generator)
        first = torch.rand(count, generator=generator) < SHARES[0]
        means, scales = (torch.where(first, *of) for of in (MEANS, SCALES))
        x[:, 0] = means + scales * x[:, 0]
        return x

    def log_density(self, x: Tensor) -> Tensor:
        parts = torch.stack(
            [
                math.log(share) + Normal(mean, scale).log_prob(x[:, 0])
                for share, mean, scale in zip(SHARES, MEANS, SCALES, strict=True)
            ]
        )
        return torch.logsumexp(parts, 0) + Normal(0.0, 1.0).log_prob(x[:, 1:]).sum(1)

    def cdf(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the first entry."""
        parts = zip(SHARES, MEANS, SCALES, strict=True)
        return np.sum([share * norm.cdf(x, m, s) for share, m, s in parts], axis=0)


MEAN = sum(share * mean for share, mean in zip(SHARES, MEANS, strict=True))
SECOND = sum(c * (s**2 + m**2) for c, m, s in zip(SHARES, MEANS, SCALES, strict=True))
DEVIATION = math.sqrt(SECOND - MEAN**2)


@dataclass(frozen=True)
class Model:
    """The mis-fitted Gaussian."""

    dimension: int = 1

    @property
    def normal(self) -> Normal:
        mean, scale = torch.zeros(self.dimension), torch.full((self.dimension,), WIDER)
        mean[0], scale[0] = MEAN + SHIFT, WIDER * DEVIATION
        return Normal(mean, scale)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn((count, self.dimension), generator=generator)
        return self.normal.loc + self.normal.scale * noise

    def log_density(self, x: Tensor) -> Tensor:
        return self.normal.log_prob(x).sum(1)


def exact(dimension: int) -> LogRatio:
    target, model = Target(dimension), Model(dimension)
    return lambda x: target.log_density(x) - model.log_density(x)


def none(x: Tensor) -> Tensor:
    """Every weight 1: the model as it is."""
    return x.new_zeros(len(x))


def learn(seed: int, dimension: int = 1) -> ope.DensityRatio:
    data = Target(dimension).draw(DATA, torch_generator(seed, "data"))
    return ope.fit_density_ratio(data, Model(dimension).draw, LEARNED, seed=seed)


def over_train(seed: int) -> tuple[LogRatio, LogRatio]:
    """Before calibration and after it."""
    sides = Target().draw, Model().draw
    data, drawn = (
        draw(FEW, torch_generator(seed, "few", name))
        for draw, name in zip(sides, ("data", "model"), strict=True)
    )
    ratio = ope.fit_density_ratio(data, drawn, TOO_LONG, seed=seed, held_out=0.5)
    assert ratio.report is not None
    temperature = ratio.report.temperature
    assert temperature is not None
    return lambda x: ratio.log_ratio(x) * temperature, ratio.log_ratio


def judge(log_ratio: LogRatio, seed: int, dimension: int = 1) -> dict[str, Any]:
    """Of a ratio: how far it is from the exact one, on fresh samples of both sides."""
    generator = torch_generator(seed, "fresh")
    real, drawn = (side(dimension).draw(FRESH, generator) for side in (Target, Model))
    logits = log_ratio(real), log_ratio(drawn)
    truth = exact(dimension)(real), exact(dimension)(drawn)
    curve = ReliabilityCurve.of(*logits)
    mass = ope.InducedModel(Model(dimension).draw, log_ratio).normaliser(FRESH, generator)
    return {
        "log_loss": float(log_loss(*logits)),
        "log_loss_of_the_exact_ratio": float(log_loss(*truth)),
        "expected_calibration_error": expected_calibration_error(curve),
        "reliability": {"predicted": curve.predicted, "observed": curve.observed},
        "rms_error_of_log_ratio_under_target": rms(logits[0] - truth[0]),
        "rms_error_of_log_ratio_under_model": rms(logits[1] - truth[1]),
        "mean_weight_of_the_model": float(mass.value),
        "effective_share": float(mass.ess) / FRESH,
    }


def rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())


def functions(x: Tensor) -> Tensor:
    """`[n, 3]`: of the first entry, itself, its square, and whether it is in the upper tail."""
    first = x[:, 0].double()
    return torch.stack((first, first.square(), (first > TAIL).double()), 1)


FUNCTIONS = ("mean", "second moment", f"P(x > {TAIL})")
TRUE = np.array([MEAN, SECOND, 1 - float(Target().cdf(np.array(TAIL)))])


def expectation_error(
    log_ratio: LogRatio, count: int, seed: int, dimension: int = 1
) -> list[float]:
    """`[3]`: root-mean-square error of each function's expectation, from `count` draws."""
    generator = torch_generator(seed, "expectations", str(count))
    model = ope.InducedModel(Model(dimension).draw, log_ratio)
    found = [model.expectation(functions, count, generator).value for _ in range(REPEATS)]
    off = torch.stack(found).numpy() - TRUE
    return [float(error) for error in np.sqrt(np.mean(off**2, axis=0))]


def quantiles(count: int) -> NDArray[np.float64]:
    """The target's, at the middles of as many equal shares: an ideal sample."""
    grid = np.linspace(-8, 8, 200_001)
    return np.interp((np.arange(count) + 0.5) / count, Target().cdf(grid), grid)


def distances(log_ratio: LogRatio, seed: int) -> list[float]:
    """Wasserstein-1 distance of SIR's samples to the target, for each number of candidates."""
    generator = torch_generator(seed, "SIR")
    model = ope.InducedModel(Model().draw, log_ratio)
    ideal = quantiles(SAMPLES)
    return [
        float(wasserstein_distance(model.sample(SAMPLES, k, generator)[:, 0].numpy(), ideal))
        for k in CANDIDATES
    ]


def study(seed: int) -> dict[str, Any]:
    """One seed's numbers, of one dimension."""
    before, after = over_train(seed)
    weights: dict[str, LogRatio] = {
        "none": none,
        "exact": exact(1),
        "learned": learn(seed).log_ratio,
    }
    judged = weights | {"over-trained": before, "over-trained, calibrated": after}
    ideal, own = quantiles(SAMPLES), Target().draw(SAMPLES, torch_generator(seed, "own"))
    return {
        "seed": seed,
        "ratio": {name: judge(ratio, seed) for name, ratio in judged.items()},
        "rms_error_of_expectation": {
            name: [expectation_error(ratio, count, seed) for count in DRAWS]
            for name, ratio in weights.items()
        },
        "wasserstein": {name: distances(weights[name], seed) for name in ("exact", "learned")},
        "wasserstein_of_target_samples": float(wasserstein_distance(own[:, 0].numpy(), ideal)),
    }


def in_dimensions(seed: int) -> list[dict[str, Any]]:
    """What more dimensions cost, with as many data and the same classifiers."""
    rows = []
    for dimension in DIMENSIONS:
        learned = learn(seed, dimension).log_ratio
        weights = {"none": none, "learned": learned, "exact": exact(dimension)}
        off = {
            name: expectation_error(ratio, DRAWS[-1], seed, dimension)
            for name, ratio in weights.items()
        }
        judged = judge(learned, seed, dimension)
        del judged["reliability"]
        share = judge(exact(dimension), seed, dimension)["effective_share"]
        judged["effective_share_of_the_exact_ratio"] = share
        rows.append({"dimension": dimension, "rms_error_of_expectation": off, **judged})
    return rows


SPAN = (-5.2, 6.2)
FAINT, MIDDLE, DEEP = "#a9cbe6", "#5b9bd0", "#123f66"


def draw_heart(ax: Any, learned: LogRatio) -> None:
    """Target, model, and what SIR makes of the model as candidates grow."""
    grid = torch.linspace(*SPAN, 600)
    target, model = (side.log_density(grid[:, None]).exp() for side in (Target(), Model()))
    ax.fill_between(grid, target, color="#dcdcdc", lw=0)
    ax.plot(grid, model, color=PLAIN, lw=2.2)
    induced = ope.InducedModel(Model().draw, learned)
    generator = torch_generator(0, "heart")
    for k, colour in ((2, FAINT), (5, MIDDLE), (100, DEEP)):
        x = induced.sample(40_000, k, generator)[:, 0]
        height, edges = np.histogram(x, bins=60, range=SPAN, density=True)
        ax.stairs(height, edges, color=colour, lw=1.7)
    for text, x, y, colour in (
        ("data", 1.42, 0.12, "#777777"),
        ("model, fitted wrong\n= SIR with k = 1", 3.1, 0.11, PLAIN),
        ("k = 2", 2.63, 0.195, "#7fb0d8"),
        ("k = 5", 2.35, 0.28, MIDDLE),
        ("k = 100", 1.95, 0.34, DEEP),
    ):
        ax.text(x, y, text, color=colour, ha="center" if text == "data" else "left")
    ax.set(ylim=(0, None), yticks=[], xlabel="x", ylabel="density")
    ax.set_title("Of k model samples, keep one by its weight: the data's shape comes back")


def draw_ratios(ax: Any, learned: LogRatio) -> None:
    """Log-ratios against x: exact, learned, and over-trained before and after calibration."""
    grid = torch.linspace(*SPAN, 600)[:, None]
    before, after = over_train(0)
    for log_ratio, label, style in (
        (before, "trained too long on 50 samples", {"color": PLAIN, "lw": 1.3}),
        (after, "… then calibrated", {"color": PLAIN, "lw": 1.6, "ls": (0, (4, 2))}),
        (learned, "learned from 10 000 samples", {"color": WEIGHTED, "lw": 2.2}),
        (exact(1), "exact", {"color": TRUTH, "lw": 1.6, "ls": ":"}),
    ):
        ax.plot(grid[:, 0], log_ratio(grid), label=label, **style)
    ax.set(xlim=SPAN, ylim=(-9, 7), xlabel="x", ylabel="log-ratio, data to model")
    ax.legend(frameon=False, fontsize=8, loc="lower center", ncols=2)
    ax.set_title("The weight is learned from samples alone")


def draw_distances(ax: Any, cells: list[dict[str, Any]]) -> None:
    """How far SIR's samples are from the target, over seeds."""
    for name, colour in (("exact", TRUTH), ("learned", WEIGHTED)):
        far = np.array([cell["wasserstein"][name] for cell in cells])
        ax.fill_between(CANDIDATES, far.min(0), far.max(0), color=colour, alpha=0.2, lw=0)
        ax.plot(CANDIDATES, far.mean(0), marker="o", ms=4, color=colour, label=f"{name} ratio")
    floor = np.array([cell["wasserstein_of_target_samples"] for cell in cells])
    ax.axhspan(floor.min(), floor.max(), color="#888888", alpha=0.2, lw=0)
    ax.axhline(floor.mean(), color="#888888", ls="--", lw=1)
    ax.text(1, floor.min() * 0.94, "real samples, as many", color="#777777", fontsize=8, va="top")
    ax.set(xscale="log", yscale="log", ylabel="Wasserstein distance", xlabel="candidates k")
    ax.set_xticks(CANDIDATES, [str(k) for k in CANDIDATES])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=8)
    ax.set_title("SIR nears the data")


def draw_errors(ax: Any, cells: list[dict[str, Any]], which: int = 1) -> None:
    """Error of one function's expectation as draws grow, over seeds."""
    for name, colour, label in (
        ("none", PLAIN, "model, unweighted"),
        ("learned", WEIGHTED, "learned ratio"),
        ("exact", TRUTH, "exact ratio"),
    ):
        off = np.array([cell["rms_error_of_expectation"][name] for cell in cells])[..., which]
        ax.fill_between(DRAWS, off.min(0), off.max(0), color=colour, alpha=0.2, lw=0)
        ax.plot(DRAWS, np.sqrt((off**2).mean(0)), marker="o", ms=4, color=colour, label=label)
    ax.set(xscale="log", yscale="log", xlabel="model samples, weighted", ylabel="r.m.s. error")
    ax.legend(frameon=False, fontsize=8)
    ax.set_title("Weights take the error of E[x²] away")


def draw_figure(cells: list[dict[str, Any]]) -> Any:
    figure = new_figure(11, 7)
    panels = figure.subplot_mosaic(
        [["heart", "distances"], ["ratios", "errors"]], width_ratios=(1.75, 1)
    )
    panels["heart"].sharex(panels["ratios"])
    learned = learn(0).log_ratio
    draw_heart(panels["heart"], learned)
    draw_ratios(panels["ratios"], learned)
    draw_distances(panels["distances"], cells)
    draw_errors(panels["errors"], cells)
    for ax in panels.values():
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set(fontsize=11, fontweight="bold")
    return figure


def main(seeds: int = 5, redraw: bool = False) -> None:
    """Run it, store it and say what came out; or redraw the figure of what is stored."""
    if redraw:
        told = json.loads(RESULTS.with_suffix(".json").read_text(encoding="utf-8"))
        save_figure(draw_figure(told["seeds"]), RESULTS.with_suffix(".png"))
        return
    cells = []
    for seed in range(seeds):
        cells.append(study(seed))
        typer.echo(f"seed {seed}: done")
    stored = {
        "command": f"python experiments/toy_ratio.py --seeds {seeds}",
        "data": DATA,
        "draws": DRAWS,
        "candidates": CANDIDATES,
        "functions": FUNCTIONS,
        "true": TRUE.tolist(),
        "seeds": cells,
        "dimensions": in_dimensions(0),
    }
    write_text(RESULTS.with_suffix(".json"), json.dumps(stored, indent=1) + "\n")
    save_figure(draw_figure(cells), RESULTS.with_suffix(".png"))
    for name in cells[0]["ratio"]:
        loss, error, mass = (
            np.mean([cell["ratio"][name][key] for cell in cells])
            for key in ("log_loss", "expected_calibration_error", "mean_weight_of_the_model")
        )
        typer.echo(f"{name:>24}: log-loss {loss:.4f}, ECE {error:.3f}, mean weight {mass:.3g}")


if __name__ == "__main__":
    typer.run(main)
