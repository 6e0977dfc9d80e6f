"""What `paper_table.py` tells of its cells: a table in Markdown, the same in JSON, a figure."""

import itertools
import json

import numpy as np

import lfiw_ope as ope
from lfiw_ope.plots import PLAIN, TRUTH, WEIGHTED, new_figure, save_figure
from lfiw_ope.stored import write_text

COMMAND = "python experiments/paper_table.py --summary"
TITLES = {
    "swimmer": "Swimmer",
    "half_cheetah": "HalfCheetah",
    "humanoid_standup": "HumanoidStandup",
}


def write_report(cells, folder):
    """`paper_table.{json,md,png}` in a folder."""
    if not cells:
        return
    groups = [group(list(own)) for _, own in itertools.groupby(sorted(cells, key=key), key)]
    stored = {"command": COMMAND, "groups": groups}
    write_text(folder / "paper_table.json", json.dumps(stored, indent=1, allow_nan=False) + "\n")
    write_text(folder / "paper_table.md", markdown(groups))
    save_figure(draw(cells), folder / "paper_table.png")


def key(cell):
    return list(TITLES).index(cell["task"]), cell["episodes"]


DEFAULT = "LFIW()'s form"


def default_row(cell):
    """What the default's form and thresholds give, from these ten classifiers."""
    config = ope.LFIWConfig()
    form = cell["forms"][config.weighting.label]
    reason = config.fallback.reason(
        accuracy=cell["classifier"]["accuracy"], raw_ess=form["raw_ess"], rollouts=1000
    )
    chosen = form if reason is None else cell["forms"]["model"]
    return {**chosen, "fell_back": reason is not None}


def group(cells):
    """The cells of one task and size: each form over seeds."""
    first = cells[0]
    forms = [{**cell["forms"], DEFAULT: default_row(cell)} for cell in cells]
    model_error = np.array([abs(cell["forms"]["model"]["error"]) for cell in cells])
    rows = {}
    for form in forms[0]:
        own = [of_cell[form] for of_cell in forms]
        value, error = (np.array([one[name] for one in own]) for name in ("value", "error"))
        # Slots of sequential Monte Carlo are tied and depend on each other: k̂ says nothing of them.
        kept = [one["pareto_k"] for one in own if one["resampled"] is None]
        shapes = [shape for shape in kept if shape is not None]
        rows[form] = {
            "value": float(value.mean()),
            "value_standard_error": spread(value),
            "bias": float(error.mean()),
            "mean_absolute_error": float(np.abs(error).mean()),
            "error_over_models": float(np.median(np.abs(error) / model_error)),
            "nearer_than_model": int((np.abs(error) < model_error).sum()),
            "ess": float(np.median([one["ess"] for one in own])),
            "pareto_k": float(np.median(shapes)) if shapes else None,
            "fell_back": sum(one.get("fell_back", False) for one in own),
        }
    logged = np.array([cell["behaviour_mean_return"] for cell in cells])
    return {
        "task": first["task"],
        "transitions": first["transitions"],
        "seeds": [cell["seed"] for cell in cells],
        "commits": sorted({cell["commit"] for cell in cells}),
        "truth": first["truth"],
        "behaviour_mean_return": float(logged.mean()),
        "behaviour_error": float(np.abs(logged - first["truth"]["mean"]).mean()),
        "model_on_behaviour": float(np.mean([cell["model_on_behaviour"] for cell in cells])),
        "classifier_accuracy": float(np.mean([cell["classifier"]["accuracy"] for cell in cells])),
        "classifier_log_loss": float(np.mean([cell["classifier"]["log_loss"] for cell in cells])),
        "forms": rows,
    }


def spread(values):
    """Standard error of the mean over seeds; None for one."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None


def markdown(groups):
    lines = [
        "# The table of Grover et al. (2019), on v5 tasks, measured",
        "",
        f"`{COMMAND}`; made by `experiments/paper_table.py`, whose head says what differs from",
        "the paper. Mean over seeds ± its standard error; error is the mean of |error| over seeds;",
        "÷ model is the median over seeds of |error| over the plain model's own; nearer counts the",
        "seeds where the form is nearer to the truth than the plain model; ESS (of 1000 rollouts)",
        "and k̂ are medians.",
    ]
    for told in groups:
        truth, count = told["truth"], len(told["seeds"])
        lines += [
            "",
            f"## {TITLES[told['task']]}, {told['transitions']:,} transitions, {count} seeds",
            "",
            f"Truth {truth['mean']:.2f} ± {truth['standard_error']:.2f}. The log's mean return "
            f"{told['behaviour_mean_return']:.2f} (as an estimate off by "
            f"{told['behaviour_error']:.2f}); the plain model on the behaviour policy "
            f"{told['model_on_behaviour']:.2f}. Classifiers: {told['classifier_accuracy']:.0%} "
            f"accurate, log-loss {told['classifier_log_loss']:.3f}.",
            "",
            "| form | value | error | ÷ model | nearer | ESS | k̂ |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name, row in told["forms"].items():
            error, shape = row["value_standard_error"], row["pareto_k"]
            fell = f" (fell back in {row['fell_back']})" if row["fell_back"] else ""
            lines.append(
                f"| {name}{fell} | {row['value']:.2f}"
                + (f" ± {error:.2f}" if error is not None else "")
                + f" | {row['mean_absolute_error']:.2f} | {row['error_over_models']:.2f} | "
                f"{row['nearer_than_model']}/{count} | {row['ess']:.1f} | "
                f"{'–' if shape is None else format(shape, '.2f')} |"
            )
    return "\n".join(lines) + "\n"


def draw(cells):
    """Value against H, log-weight against return, ESS against step; a row for each task."""
    most = max(cell["episodes"] for cell in cells)
    tasks = [task for task in TITLES if any(c["task"] == task for c in cells)]
    figure = new_figure(13, 3.3 * len(tasks))
    for axes, task in zip(figure.subplots(len(tasks), 3, squeeze=False), tasks, strict=True):
        own = [c for c in cells if c["task"] == task]
        own = [c for c in own if c["episodes"] == most] or own
        draw_values(axes[0], own)
        draw_weights(axes[1], min(own, key=lambda c: c["seed"]))
        draw_ess(axes[2], own)
        about = f"{own[0]['transitions'] // 1000}k transitions, {len(own)} seeds"
        axes[0].set_title(f"{TITLES[task]}, {about}", loc="left")
        axes[1].set_title("c-LFIW's weights, one seed", loc="left")
        axes[2].set_title("rollouts that carry the weight", loc="left")
    lines = figure.axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper left", ncols=4, frameon=False)
    return figure


def draw_values(ax, cells):
    first = cells[0]["value_by_first"]["first"]
    forms = (("published", PLAIN, "LFIW, published"), ("conditional", WEIGHTED, "c-LFIW"))
    for kind, colour, label in forms:
        curves = np.array([cell["value_by_first"][kind] for cell in cells])
        error = curves.std(0, ddof=1) / len(curves) ** 0.5 if len(curves) > 1 else 0.0
        ax.plot(first, curves.mean(0), color=colour, label=label)
        ax.fill_between(
            first, curves.mean(0) - error, curves.mean(0) + error, color=colour, alpha=0.2, lw=0
        )
    ax.axhline(cells[0]["truth"]["mean"], color=TRUTH, label="truth")
    logged = np.mean([cell["behaviour_mean_return"] for cell in cells])
    ax.axhline(logged, color="#888888", ls="--", lw=1, label="behaviour's mean return")
    ax.set_xlabel("H, ratios used (0: the plain model)")
    ax.set_ylabel("value")


def draw_weights(ax, cell):
    ax.scatter(
        cell["weights"]["returns"], cell["weights"]["log_weights"], s=6, color=WEIGHTED, lw=0
    )
    ax.axvline(cell["truth"]["mean"], color=TRUTH, lw=1)
    ax.axhline(0, color="#888888", lw=1, ls="--")
    ax.set_xlabel("simulated return (line: truth)")
    ax.set_ylabel("log(weight × n)")


def draw_ess(ax, cells):
    for name, colour in (("published stepwise", PLAIN), ("c-stepwise", WEIGHTED)):
        curves = np.array([cell["ess_by_step"][name] for cell in cells])
        ax.plot(np.arange(1, curves.shape[1] + 1), np.median(curves, 0), color=colour, label=name)
    ax.set_yscale("log")
    ax.set_ylim(0.9, 1100)
    ax.set_xlabel("step")
    ax.set_ylabel("effective sample size")
    ax.legend(frameon=False, fontsize=8)
