"""The benchmark: ladders, data sets, support, suites, leaderboard."""

from lfiw_ope.benchmark.datasets import (
    DataSet,
    copies_for,
    dataset,
    find_or_play,
    shares_of,
    shuffled,
)
from lfiw_ope.benchmark.demo import DEMOS, DemoResult, run_demo, save_demo
from lfiw_ope.benchmark.ground_truth import (
    COPIES,
    PLAYS,
    measure_ladder,
    measure_values,
    play_returns,
)
from lfiw_ope.benchmark.leaderboard import Leaderboard
from lfiw_ope.benchmark.provenance import digest, made_by
from lfiw_ope.benchmark.report import as_markdown, draw_leaderboard, write_leaderboard
from lfiw_ope.benchmark.run import BenchResults, Pace, require_free, run_suite
from lfiw_ope.benchmark.standings import MEASURES, Measured, Standing
from lfiw_ope.benchmark.suites import SUITES, Suite, estimator_entries, get_suite, ladders_named
from lfiw_ope.benchmark.support import (
    INSIDE,
    SEED,
    SUPPORTED,
    DataSupport,
    Pairs,
    Region,
    measure_support,
    pairs_at,
    step_weights,
    write_support,
)
from lfiw_ope.benchmark.trials import BenchRow, Known, estimators_of, trials_of

__all__ = [
    "COPIES",
    "DEMOS",
    "INSIDE",
    "MEASURES",
    "PLAYS",
    "SEED",
    "SUITES",
    "SUPPORTED",
    "BenchResults",
    "BenchRow",
    "DataSet",
    "DataSupport",
    "DemoResult",
    "Known",
    "Leaderboard",
    "Measured",
    "Pace",
    "Pairs",
    "Region",
    "Standing",
    "Suite",
    "as_markdown",
    "copies_for",
    "dataset",
    "digest",
    "draw_leaderboard",
    "estimator_entries",
    "estimators_of",
    "find_or_play",
    "get_suite",
    "ladders_named",
    "made_by",
    "measure_ladder",
    "measure_support",
    "measure_values",
    "pairs_at",
    "play_returns",
    "require_free",
    "run_demo",
    "run_suite",
    "save_demo",
    "shares_of",
    "shuffled",
    "step_weights",
    "trials_of",
    "write_leaderboard",
    "write_support",
]
