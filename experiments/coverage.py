"""How often intervals hold: nominal against measured coverage where the true value is known.

    OMP_NUM_THREADS=1 python experiments/coverage.py [--jobs 2] [--only 'FQE*'] [--repeats 200]
    python experiments/coverage.py --summary

A setting is a test-bed × a mismatch of the target × a number of episodes; in each of them every
estimator is fitted to 200 data sets that share nothing, and it is counted how often its interval
at 50, 80, 90 and 95 % holds the exact value. Networks are small, horizon 10, undiscounted.

    near   targets whose trajectory weights keep 76 % (tabular) and 43 % (linear-Gaussian) of the
           episodes as effective ones
    far    targets that keep 10 % and 4 %
    lost   targets that keep 1 % and less: what an interval says where it should say nothing

What takes a second or two a data set is measured in fewer settings: `SETTINGS`.

Rule for defaults, written before the runs: an estimator's default is the kind of interval whose
smallest coverage at nominal 95 %, over the settings, is largest; where that is below 85 % in a
setting whose weights are not refused, the estimator carries none by default and says why. Finished
blocks of ten data sets are stored as they come, and a run that was stopped goes on.
"""

import argparse
import fnmatch
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import torch
from cells import commit
from coverage_estimators import ESTIMATORS, beds
from scipy import stats

import lfiw_ope as ope
from lfiw_ope.core import markdown_table, provenance, write_text
from lfiw_ope.evaluation import new_figure, save_figure

RESULTS = Path(__file__).parent / "results"
STORED = RESULTS / "coverage.json"
CACHE = Path(__file__).parent / "runs" / "coverage"
SIZES, REPEATS, BLOCK, HORIZON = (50, 200), 200, 10, 10
LEVELS = (0.5, 0.8, 0.9, 0.95)
FEW = 0.05
"""Of logs with an interval, too small a share to say how often it holds."""
EVERY = [(mismatch, episodes) for mismatch in ("near", "far") for episodes in SIZES]
LARGER = [(mismatch, SIZES[-1]) for mismatch in ("near", "far")]
LOST = [("lost", SIZES[-1])]
SETTINGS = {
    "importance": EVERY + LOST,
    "bounded": EVERY,
    "FQE": EVERY + LOST,
    "model": EVERY + LOST,
    "DR": LARGER,
    "LFIW": LARGER,
    "refitted": [("near", SIZES[0])],
}


@dataclass(frozen=True)
class Work:
    """Ten data sets of a setting, for one family of estimators that share a fit."""

    bed: str
    mismatch: str
    episodes: int
    family: str
    block: int

    @property
    def place(self) -> Path:
        return Path(self.bed) / self.mismatch / str(self.episodes) / self.family / str(self.block)


def measure(work):
    """A row a data set and interval: the value, the ends at each level, or why there are none."""
    torch.set_num_threads(1)
    bed = beds()[work.bed]
    target = bed.targets[work.mismatch]
    rows = []
    for repeat in range(work.block * BLOCK, (work.block + 1) * BLOCK):
        # The data depend on the setting's bed and size alone: estimators meet the same ones.
        data = bed.log(work.episodes, HORIZON, seed=10_000 + repeat)
        started = time.perf_counter()
        found = ESTIMATORS[work.family](ope.Estimand(HORIZON), data, target, repeat)
        seconds = time.perf_counter() - started
        for name, estimate in found.items():
            ends = [estimate.interval(level) for level in LEVELS] if estimate.intervals else None
            rows.append(
                {
                    "name": name,
                    "repeat": repeat,
                    "value": estimate.value,
                    "ends": None if ends is None else [[one.low, one.high] for one in ends],
                    "why": estimate.no_interval,
                    "seconds": seconds / len(found),
                }
            )
    return work, {"commit": commit(), "rows": rows}


def read(work):
    """A finished block, or None."""
    path = CACHE / work.place.with_suffix(".json")
    return json.loads(path.read_text()) if path.exists() else None


def summary(everything):
    """Coverage of each interval in each setting, with Clopper and Pearson's 95 % interval."""
    made = beds()
    rows = []
    ranges = {name: bed.return_range(HORIZON) for name, bed in made.items()}
    settings = sorted({(w.bed, w.mismatch, w.episodes, w.family) for w, _ in everything})
    for setting in settings:
        of_setting = [
            block for w, block in everything if (w.bed, w.mismatch, w.episodes, w.family) == setting
        ]
        told = [row for block in of_setting for row in block["rows"]]
        commits = sorted({block["commit"] for block in of_setting})
        name, mismatch, episodes, _ = setting
        truth = made[name].mdp.value(made[name].targets[mismatch], HORIZON)
        for interval in dict.fromkeys(row["name"] for row in told):
            mine = [row for row in told if row["name"] == interval]
            values = np.array([row["value"] for row in mine])
            row = {
                "bed": name,
                "mismatch": mismatch,
                "episodes": episodes,
                "interval": interval,
                "repeats": len(mine),
                "truth": truth,
                "bias": float(values.mean() - truth),
                "spread": float(values.std(ddof=1)),
                "seconds": float(np.mean([one["seconds"] for one in mine])),
                "commits": commits,
            }
            rows.append({**row, **counted(mine, truth, ranges[name])})
    return rows


def counted(mine, truth, spread):
    """At each level, how many of the intervals that were given hold the truth."""
    ends = np.array([row["ends"] for row in mine if row["ends"] is not None])
    reasons = {row["why"] for row in mine if row["why"]}
    given = {"given": len(ends), "why_not": sorted(reasons)[:1]}
    if not len(ends):
        return {**given, "levels": {}}
    held = (ends[:, :, 0] <= truth) & (truth <= ends[:, :, 1])
    levels = {}
    for place, level in enumerate(LEVELS):
        test = stats.binomtest(int(held[:, place].sum()), len(ends))
        between = test.proportion_ci(0.95, method="exact")
        width = ends[:, place, 1] - ends[:, place, 0]
        levels[f"{level:g}"] = {
            "coverage": float(held[:, place].mean()),
            "low": float(between.low),
            "high": float(between.high),
            "median_width_over_range": float(np.median(width) / spread),
        }
    return {**given, "levels": levels}


def markdown(rows):
    """Measured coverage at 95 %, a row an interval, a column a setting."""
    columns = sorted({(r["bed"], r["mismatch"], r["episodes"]) for r in rows})
    names = list(dict.fromkeys(row["interval"] for row in rows))
    by = {(r["interval"], r["bed"], r["mismatch"], r["episodes"]): r for r in rows}
    head = ["95 % interval", *(f"{b}, {m}, {n}" for b, m, n in columns)]
    return markdown_table(
        head,
        [[name, *(in_words(by.get((name, *column))) for column in columns)] for name in names],
    )


DEFAULTS = {
    "`IS`": "IS, t",
    "`PDIS`": "PDIS, t",
    "`WIS`": "WIS, t",
    "`WPDIS`": "WPDIS, t",
    "`DR`": "DR, t",
    "`WDR`": "WDR, t",
    "`FQE`, five members": "FQE, members",
    "`ModelBased`": "model, with bias",
    "the same by simulation noise alone": "model, simulation noise",
    "`LFIW`": "LFIW",
}


def defaults_table(rows):
    """Of what is the default: coverage at 95 % on the two test-beds, and who got an interval."""
    by = {(r["interval"], r["bed"], r["mismatch"], r["episodes"]): r for r in rows}
    columns = [*EVERY, *LOST]
    lines = []
    for name, interval in DEFAULTS.items():
        cells = [
            " / ".join(
                shortly(by.get((interval, bed, *column))) for bed in ("tabular", "linear-Gaussian")
            )
            for column in columns
        ]
        lines.append([name, *cells])
    return markdown_table(["", *(f"{mismatch}, {n} episodes" for mismatch, n in columns)], lines)


def shortly(row):
    """Coverage in percent; in brackets the share of logs that got an interval, if not all did."""
    if row is None:
        return "–"
    given = row["given"] / row["repeats"]
    if given < FEW:
        return f"none ({given:.0%})"
    held = f"{row['levels']['0.95']['coverage']:.0%}"
    return held if given == 1.0 else f"{held} ({given:.0%})"


def in_words(row):
    """Coverage, the share of data sets that got an interval where not all did, and the width."""
    if row is None:
        return ""
    if not row["levels"]:
        return "none"
    at = row["levels"]["0.95"]
    given = "" if row["given"] == row["repeats"] else f" of {row['given'] / row['repeats']:.0%}"
    return f"{at['coverage']:.0%}{given} ({at['median_width_over_range']:.2f})"


def draw(rows):
    """Nominal against measured, a panel a kind of estimator, a line a setting."""
    names = list(dict.fromkeys(row["interval"] for row in rows))
    columns = 4
    lines = -(-len(names) // columns)
    figure = new_figure(3 * columns, 2.8 * lines)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for ax, name in zip(panels.flat, names, strict=False):
        ax.plot([0, 1], [0, 1], color="0.7", lw=1)
        ax.axhline(0.85, color="0.85", lw=0.8, ls=":")
        for row in rows:
            if row["interval"] != name or not row["levels"]:
                continue
            nominal = [float(level) for level in row["levels"]]
            told = list(row["levels"].values())
            measured = [one["coverage"] for one in told]
            away = [
                [one["coverage"] - one["low"] for one in told],
                [one["high"] - one["coverage"] for one in told],
            ]
            ax.errorbar(
                nominal,
                measured,
                yerr=away,
                marker="o" if row["episodes"] == SIZES[0] else "s",
                ms=3,
                lw=1,
                elinewidth=0.6,
                color="#3465a4" if row["bed"] == "tabular" else "#cc6600",
                ls={"near": "-", "far": "--", "lost": ":"}[row["mismatch"]],
                label=f"{row['bed']}, {row['mismatch']}, {row['episodes']}",
            )
        ax.set_title(name, loc="left", fontsize=9)
        ax.set_xlim(0.4, 1.0)
        ax.set_ylim(0.0, 1.02)
    for ax in panels.flat[len(names) :]:
        ax.axis("off")
    handles, labels = [], []
    for ax in panels.flat:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    panels[-1, 0].set_xlabel("nominal", fontsize=9)
    for ax in panels[:, 0]:
        ax.set_ylabel("measured", fontsize=9)
    save_figure(figure, STORED.with_suffix(".png"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="*", help="families of estimators, by pattern")
    parser.add_argument("--mismatch", nargs="+", default=("near", "far", "lost"))
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--summary", action="store_true", help="of what is stored, and no more")
    options = parser.parse_args()
    every = [
        Work(bed, mismatch, episodes, family, block)
        for family in SETTINGS
        for block in range(REPEATS // BLOCK)
        for bed in beds()
        for mismatch, episodes in SETTINGS[family]
    ]
    if not options.summary:
        wanted = [
            work
            for work in every
            if fnmatch.fnmatch(work.family, options.only)
            and work.mismatch in options.mismatch
            and work.block < options.repeats // BLOCK
            and read(work) is None
        ]
        run = joblib.Parallel(options.jobs, return_as="generator_unordered")
        for done, (work, block) in enumerate(run(joblib.delayed(measure)(w) for w in wanted), 1):
            text = json.dumps(block, allow_nan=False)
            write_text(CACHE / work.place.with_suffix(".json"), text)
            print(f"{done}/{len(wanted)} {work.place}", flush=True)
    finished = [(work, block) for work in every if (block := read(work)) is not None]
    rows = summary(finished)
    about = {"command": "python experiments/coverage.py", **provenance(), "horizon": HORIZON}
    about["cpus"] = os.cpu_count()
    write_text(STORED, json.dumps({**about, "rows": rows}, indent=1, allow_nan=False) + "\n")
    write_text(STORED.with_suffix(".md"), markdown(rows))
    write_text(STORED.with_name("coverage_defaults.md"), defaults_table(rows))
    draw(rows)
    print(markdown(rows) + "\n" + defaults_table(rows))


if __name__ == "__main__":
    main()
