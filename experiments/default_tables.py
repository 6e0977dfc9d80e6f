"""What `default_weighting.py` found, as a page and a figure."""

from pathlib import Path
from typing import Any

import numpy as np
from default_choice import LEAST_ESS, MODEL, MOST_ACCURACY, Candidate, Study, rounded

from lfiw_ope.plots import PLAIN, TRUTH, WEIGHTED, new_figure, save_figure


def form_rows(study: Study) -> list[dict[str, Any]]:
    """What is said of each form, without a fallback; the least error first."""
    model = study.task_errors(MODEL)
    rows = []
    for form, name in enumerate(study.labels):
        candidate = Candidate(form, 0.0, 1.0)
        errors, size = study.task_errors(candidate), np.abs(study.error[:, form])
        gain = study.gain(candidate)
        row = {
            "form": name,
            "error": errors.mean(),
            "median_error": np.median(size),
            "gain": gain.mean,
            "gain_standard_error": gain.standard_error,
            "ratio_to_model": np.exp(np.log(errors / model).mean()),
            "worst_task_ratio": (errors / model).max(),
            "as_model": (study.error[:, form] == study.error[:, 0]).mean(),
            "nearer": (size < np.abs(study.error[:, 0])).mean(),
            "ess": np.median(study.ess[:, form]),
            "raw_ess": np.median(study.raw_ess[:, form]),
        }
        by_task = dict(zip(study.tasks, map(rounded, errors), strict=True))
        rows.append({k: rounded(v) for k, v in row.items()} | {"by_task": by_task})
    return sorted(rows, key=lambda row: row["error"])


def fallback_rows(study: Study, form: int) -> list[dict[str, Any]]:
    """What the thresholds make of one form."""
    model, rows = study.task_errors(MODEL), []
    for least in LEAST_ESS:
        for most in MOST_ACCURACY:
            candidate = Candidate(form, least, most)
            errors, gain = study.task_errors(candidate), study.gain(candidate)
            row = {
                "least_ess": least,
                "most_accuracy": most,
                "fallen_back": study.fallen(candidate).mean(),
                "error": errors.mean(),
                "gain": gain.mean,
                "gain_standard_error": gain.standard_error,
                "worst_task_ratio": (errors / model).max(),
            }
            rows.append({k: rounded(v) for k, v in row.items()})
    return rows


def as_text(said: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    model = next(row for row in said["forms"] if row["form"] == "model")
    parts = [
        "# Which weights `LFIW()` should have",
        f"Made by `{said['command']}`, whose docstring gives the rule. Errors are in standard "
        "deviations of the target's return: the root mean square over a task's seeds and targets, "
        "then the mean over tasks. A gain is over the plain model, ± its standard error over "
        f"tasks. There are {said['estimates']} estimates by each form, of seeds "
        f"{', '.join(map(str, said['seeds']))}. The plain model's error is {model['error']:.3f}.",
        _verdict(said),
        f"Without the pilot (seeds {', '.join(map(str, said['without_pilot']['seeds']))}): "
        + _verdict(said["without_pilot"]),
        _harm(said),
        "## Forms, without a fallback",
        _table(
            "form | error | median | gain | ratio | worst task | as model | nearer | ESS | raw ESS",
            [_form(row) for row in said["forms"]],
        ),
        "Median: of all single errors. Ratio: of a task's error to the model's, geometric mean "
        "over tasks; worst task: the largest. As model: share of estimates that are the "
        "model's own, because H is 0. Nearer: share that are nearer to the truth than the model's. "
        "ESS: median share of the rollouts.",
        "## Error by task",
        _by_task(said),
        *(
            part
            for name, rows in said["fallbacks"].items()
            for part in (
                f"## Fallbacks of {name}",
                "Its gain by seed, without one: "
                + ", ".join(f"{gain:+.3f}" for gain in said["gain_by_seed"][name])
                + ".",
                _table(
                    "least_ess | most_accuracy | falls back | error | gain | worst task",
                    [_fallback(row) for row in rows],
                ),
            )
        ),
        "## Each task left out",
        _table(
            "left out | leader of the rest | its gain there | choice of the rest | its gain there",
            [
                (
                    row["task"],
                    row["leader"],
                    f"{row['leader_gain']:+.3f}",
                    row["choice"],
                    f"{row['choice_gain']:+.3f}",
                )
                for row in said["left_out"]
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _verdict(said: dict[str, Any]) -> str:
    left_out = said["left_out_gain"]
    verdict = (
        "The choice stands."
        if said["stands"]
        else "So no form is shown to be better than the plain model, and the safest is recommended."
    )
    return (
        f"Leader: {said['leader']}, gain {_pair(said['leader_gain'])}; on the tasks left out "
        f"{_pair(left_out['leader'])}. The simplest that ties with it: {said['choice']}, gain "
        f"{_pair(said['choice_gain'])}; on the tasks left out {_pair(left_out['choice'])}. "
        f"{verdict}\n\n**Recommended: {said['recommended']}**, error "
        f"{said['recommended_error']:.3f}, gain {_pair(said['recommended_gain'])}; it falls back "
        f"in {said['recommended_fallen_back']:.0%} of the estimates."
    )


def _harm(said: dict[str, Any]) -> str:
    """The forms that come into question as the safest."""

    def least(harm: dict[str, float]) -> str:
        ordered = sorted(harm.items(), key=lambda item: item[1])[:5]
        return ", ".join(f"{name} {value:.3f}" for name, value in ordered)

    return (
        f"Least harm, the sum over tasks: {least(said['harm'])}; without the pilot: "
        f"{least(said['without_pilot']['harm'])}."
    )


def _pair(gain: list[float]) -> str:
    return f"{gain[0]:+.3f} ± {gain[1]:.3f}"


def _form(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["form"],
        f"{row['error']:.3f}",
        f"{row['median_error']:.3f}",
        f"{row['gain']:+.3f} ± {row['gain_standard_error']:.3f}",
        f"{row['ratio_to_model']:.2f}",
        f"{row['worst_task_ratio']:.2f}",
        f"{row['as_model']:.0%}",
        f"{row['nearer']:.0%}",
        f"{row['ess']:.3f}",
        f"{row['raw_ess']:.3f}",
    )


def _fallback(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['least_ess']:g}",
        f"{row['most_accuracy']:g}",
        f"{row['fallen_back']:.0%}",
        f"{row['error']:.3f}",
        f"{row['gain']:+.3f} ± {row['gain_standard_error']:.3f}",
        f"{row['worst_task_ratio']:.2f}",
    )


def _by_task(said: dict[str, Any]) -> str:
    accuracy = said["classifier_accuracy"]
    head = "form | " + " | ".join(accuracy)
    rows: list[tuple[str, ...]] = [
        ("classifiers' accuracy", *(f"{value:.0%}" for value in accuracy.values()))
    ]
    rows += [
        (row["form"], *(f"{row['by_task'][name]:.2f}" for name in accuracy))
        for row in said["forms"]
    ]
    return _table(head, rows)


def _table(head: str, rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {head} |", "|" + " --- |" * (head.count("|") + 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def plot(said: dict[str, Any], path: Path) -> Path:
    """Each form's error over the model's, task by task, and their geometric mean."""
    rows = [row for row in said["forms"] if row["form"] != "model"]
    rows.sort(key=lambda row: -row["ratio_to_model"])
    model = next(row for row in said["forms"] if row["form"] == "model")["by_task"]
    figure = new_figure(7.5, 0.24 * len(rows) + 1.2)
    ax = figure.add_subplot()
    for height, row in enumerate(rows):
        ratios = [error / model[name] for name, error in row["by_task"].items()]
        one = ax.plot(ratios, [height] * len(ratios), "o", color=WEIGHTED, alpha=0.35, markersize=4)
        mean = ax.plot(row["ratio_to_model"], height, "D", color=TRUTH, markersize=5)
    one[0].set_label("a task")
    mean[0].set_label("geometric mean over tasks")
    ax.axvline(1.0, color=PLAIN, label="the plain model")
    ax.set_xscale("log")
    ax.set_yticks(range(len(rows)), [row["form"] for row in rows], fontsize=8)
    ax.set_xlabel("error over the plain model's error (left of the line: weights help)")
    ax.legend(loc="upper right", fontsize=8)
    return save_figure(figure, path)
