"""From the cells of `default_weighting.py` to a choice, by the rule that is written there."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST_ESS = (0.0, 0.01, 0.03, 0.1, 0.3)
MOST_ACCURACY = (1.0, 0.9, 0.8, 0.7, 0.6)
MOST_HARM = 0.05
"""What a safe fallback may let weights add to a task's error, in standard deviations of the return:
the standard error of a target's value where that is measured by play."""

Array = NDArray[np.float64]


class Candidate(NamedTuple):
    """A form, by its place, with the thresholds of its fallback."""

    form: int
    least_ess: float
    most_accuracy: float


class Gain(NamedTuple):
    """By how much less the error is than the model's, over tasks."""

    mean: float
    standard_error: float

    @property
    def shown(self) -> bool:
        """Whether it is above its own standard error."""
        return self.mean > self.standard_error


@dataclass(frozen=True)
class Study:
    """The cells as arrays: C estimates of a policy by each of F forms, the plain model first.

    Attributes:
        seeds: that there are.
        seed: `[C]`, of each cell.
        labels: of the forms.
        settings: of each form, those that differ from a plain product's.
        tasks: the names.
        task: `[C]`, the index of each cell's task.
        error: `[C, F]`, in standard deviations of the target's return.
        raw_ess: `[C, F]`, as a share of the rollouts; where H is chosen by ESS, of the whole
            product.
        ess: `[C, F]`, the same.
        accuracy: `[C]`, of the classifiers.
    """

    seeds: tuple[int, ...]
    seed: NDArray[np.int64]
    labels: tuple[str, ...]
    settings: tuple[int, ...]
    tasks: tuple[str, ...]
    task: NDArray[np.int64]
    error: Array
    raw_ess: Array
    ess: Array
    accuracy: Array

    @classmethod
    def of(cls, cells: list[dict[str, Any]], settings: dict[str, int], rollouts: int) -> "Study":
        labels, tasks = tuple(settings), tuple(dict.fromkeys(cell["task"] for cell in cells))
        rows = [(tasks.index(cell["task"]), row) for cell in cells for row in cell["targets"]]

        kept = np.array([[row["forms"][name] for name in labels] for _, row in rows])
        value, ess, raw_ess = np.moveaxis(kept, -1, 0)
        # Cells were made when an estimate told the raw ESS of the H ratios that were kept.
        whole = [labels.index(name.split(" first by ESS")[0]) for name in labels]
        raw_ess = raw_ess[:, whole]
        truth, spread, accuracy = (
            np.array([row[key] for _, row in rows]) for key in ("truth", "spread", "accuracy")
        )
        return cls(
            seeds=tuple(sorted({cell["seed"] for cell in cells})),
            seed=np.array([cell["seed"] for cell in cells for _ in cell["targets"]]),
            labels=labels,
            settings=tuple(settings.values()),
            tasks=tasks,
            task=np.array([index for index, _ in rows]),
            error=(value - truth[:, None]) / spread[:, None],
            raw_ess=raw_ess / rollouts,
            ess=ess / rollouts,
            accuracy=accuracy,
        )

    def of_seed(self, seed: int) -> "Study":
        """Its cells alone."""
        kept = self.seed == seed
        names = ("seed", "task", "error", "raw_ess", "ess", "accuracy")
        part = {name: getattr(self, name)[kept] for name in names}
        return replace(self, seeds=(seed,), **part)

    def fallen(self, candidate: Candidate) -> NDArray[np.bool_]:
        """`[C]`, where the fallback gives the model's value."""
        separable = self.accuracy > candidate.most_accuracy
        return separable | (self.raw_ess[:, candidate.form] < candidate.least_ess)

    def errors(self, candidate: Candidate) -> Array:
        """`[C]`, with the model's where the candidate falls back."""
        return np.where(self.fallen(candidate), self.error[:, 0], self.error[:, candidate.form])

    def task_errors(self, candidate: Candidate) -> Array:
        """Root mean square error of each task."""
        square = self.errors(candidate) ** 2
        return np.array(
            [square[self.task == index].mean() ** 0.5 for index in range(len(self.tasks))]
        )

    def gain(self, candidate: Candidate) -> Gain:
        """Over the plain model."""
        return gain_of(self.task_errors(MODEL) - self.task_errors(candidate))


def gain_by_seed(study: Study, form: int) -> list[float]:
    """A form's gain over the model, without a fallback, from the cells of each seed alone."""
    candidate = Candidate(form, 0.0, 1.0)
    parts = [study.of_seed(seed) for seed in study.seeds]
    return [rounded(part.gain(candidate).mean) for part in parts]


def gain_of(differences: Array) -> Gain:
    """From one difference a task."""
    return Gain(float(differences.mean()), _standard_error(differences))


MODEL = Candidate(0, 0.0, 1.0)


def candidates(study: Study) -> Iterator[Candidate]:
    """Every form with every pair of thresholds; the model needs none."""
    yield MODEL
    for form in range(1, len(study.labels)):
        for least in LEAST_ESS:
            for most in MOST_ACCURACY:
                yield Candidate(form, least, most)


def choose(study: Study, left_out: int | None = None) -> tuple[Candidate, Candidate]:
    """The leader and, of those that tie with it, the simplest; without one task, where asked."""
    every = list(candidates(study))
    errors = np.array([study.task_errors(candidate) for candidate in every])
    if left_out is not None:
        errors = np.delete(errors, left_out, 1)
    leader = int(errors.mean(1).argmin())
    behind = errors - errors[leader]
    tied = [
        index
        for index, difference in enumerate(behind)
        if difference.mean() <= _standard_error(difference)
    ]

    def simplicity(index: int) -> tuple[float, ...]:
        candidate = every[index]
        settings = -1 if candidate.form == 0 else study.settings[candidate.form]
        return settings, -study.fallen(candidate).mean(), errors[index].mean()

    return every[leader], every[min(tied, key=simplicity)]


def harm(study: Study, form: int) -> float:
    """What a form without a fallback adds to the tasks' errors, where it adds; the sum."""
    added = study.task_errors(Candidate(form, 0.0, 1.0)) - study.task_errors(MODEL)
    return float(added.clip(0.0).sum())


def safest(study: Study) -> tuple[Candidate, float]:
    """The weighted form that harms least, with the loosest fallback that lets little harm pass.

    Returns:
        The candidate, and the most that it adds to any task's error.
    """
    model = study.task_errors(MODEL)
    form = min(range(1, len(study.labels)), key=lambda form: harm(study, form))
    safe = []
    for candidate in candidates(study):
        worst = float((study.task_errors(candidate) - model).max())
        if candidate.form == form and worst <= MOST_HARM:
            # Of thresholds that fall back in the same estimates, the strictest.
            key = (
                float(study.fallen(candidate).mean()),
                -candidate.least_ess,
                candidate.most_accuracy,
            )
            safe.append((key, candidate, worst))
    if not safe:
        return Candidate(form, max(LEAST_ESS), min(MOST_ACCURACY)), float("nan")
    _, candidate, worst = min(safe)
    return candidate, worst


def verdict(study: Study) -> dict[str, Any]:
    """The rule, carried out."""

    def numbers(gain: Gain) -> list[float]:
        return [rounded(number) for number in gain]

    leader, choice = choose(study)
    safe, most = safest(study)
    left_out = left_out_rows(study)
    gained = {
        role: gain_of(np.array([row[f"{role}_gain"] for row in left_out]))
        for role in ("leader", "choice")
    }
    stands = study.gain(choice).shown and gained["choice"].shown
    recommended = choice if stands else safe
    return {
        "seeds": study.seeds,
        "estimates": len(study.task),
        "leader": describe(study, leader),
        "leader_gain": numbers(study.gain(leader)),
        "choice": describe(study, choice),
        "choice_gain": numbers(study.gain(choice)),
        "left_out": left_out,
        "left_out_gain": {role: numbers(gain) for role, gain in gained.items()},
        "stands": stands,
        "safest": describe(study, safe),
        "safest_most_harm": rounded(most),
        "harm": {
            name: rounded(harm(study, form)) for form, name in enumerate(study.labels) if form
        },
        "recommended": describe(study, recommended),
        "recommended_form": study.labels[recommended.form],
        "recommended_error": rounded(study.task_errors(recommended).mean()),
        "recommended_gain": numbers(study.gain(recommended)),
        "recommended_fallen_back": rounded(study.fallen(recommended).mean()),
    }


def left_out_rows(study: Study) -> list[dict[str, Any]]:
    """What is chosen without each task, and what it is worth there."""
    model = study.task_errors(MODEL)
    rows = []
    for index, name in enumerate(study.tasks):
        row: dict[str, Any] = {"task": name}
        for role, candidate in zip(("leader", "choice"), choose(study, index), strict=True):
            row[role] = describe(study, candidate)
            row[f"{role}_gain"] = rounded(model[index] - study.task_errors(candidate)[index])
        rows.append(row)
    return rows


def describe(study: Study, candidate: Candidate) -> str:
    """A candidate in words."""
    if candidate.form == 0:
        return "model"
    thresholds = f"least_ess {candidate.least_ess:g}, most_accuracy {candidate.most_accuracy:g}"
    return f"{study.labels[candidate.form]} ({thresholds})"


def rounded(number: Any) -> Any:
    """To six digits, which no conclusion needs."""
    return number if isinstance(number, str) else float(f"{number:.6g}")


def _standard_error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
