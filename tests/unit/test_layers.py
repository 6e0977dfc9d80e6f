"""The house's rules that a program can check."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lfiw_ope"

ORDER = [
    *("version", "errors", "extras", "checks", "wording", "types"),
    *("estimand", "seeding", "threads", "torch_state"),
    *("data.actions", "data.log", "data.trajectories", "data.tensors", "data.split"),
    "data.member_rows",
    *("nn.products", "nn.rectified", "nn.ensemble", "nn.dealing", "nn.fit_config", "nn.objective"),
    *("nn.adamw", "nn.fit"),
    "nn.settling",
    *("policies.actions", "policies.density", "policies.executed"),
    *("policies.heads", "policies.noise", "policies.acting"),
    *("policies.normaliser", "policies.mlp", "policies.actor_file", "policies.vec_normalize"),
    *(
        "policies.printed_bounds",
        "policies.sb3_actors",
        "policies.sb3_settings",
        "policies.sb3_zip",
        "policies.sb3_trusted",
        "policies.sb3",
    ),
    *("policies.distribution", "policies.module", "policies.onnx", "policies.function"),
    *("policies.tabular", "policies.uniform", "policies.likelihood", "policies.mixture"),
    *("policies.load", "policies.stacking", "policies.together"),
    *("policy_ratio.config", "policy_ratio.marginal", "policy_ratio.cloning"),
    *("policy_ratio.clone", "policy_ratio.ratio"),
    *("data.spaces", "data.chunks", "data.memory", "data.recording", "data.collect"),
    "data.storage",
    *("data.transitions", "data.columns", "data.arrays", "data.d4rl", "data.npz"),
    *("data.minari_episodes", "data.minari", "data.minari_saving"),
    *("data.load", "data.sb3_columns", "data.sb3_replay", "data.sb3_rollouts", "data.sb3_buffers"),
    *("weights", "resampling", "pareto", "weighting", "shaping", "intervals.sums", "weighted"),
    *("stored", "intervals.record", "intervals.config", "intervals.episodes"),
    *("intervals.members", "intervals.bernstein", "intervals.simulated"),
    *("return_distribution", "results"),
    *("drawing", "expectation", "samples", "induced"),
    *("censored", "dynamics", "dynamics_fit"),
    *("reliability", "calibration", "classifier", "classifier_fit"),
    *("density_ratio", "density_ratio_fit"),
    *("ratio", "ratio_fit"),
    *("answering", "sharing", "padding", "behaviour_return"),
    "per_policy",
    *(f"fitted_q.{name}" for name in ("config", "scale", "networks", "objective")),
    *(f"fitted_q.{name}" for name in ("report", "value", "fit")),
    *(f"occupancy.{name}" for name in ("config", "flow", "networks", "objective")),
    *(f"occupancy.{name}" for name in ("violation", "report", "ratio", "fit")),
    *("rollout", "members", "anchors", "simulated_error"),
    *("populations", "diagnostics", "appraisal", "fitted", "policy_ratio.fitted"),
    *(f"diagnosis.{name}" for name in ("config", "halves", "support", "overlap", "members")),
    *(f"diagnosis.{name}" for name in ("open_loop", "excursion", "episode_weights", "record")),
    *("diagnosis.concerns", "diagnosis.words", "diagnosis.diagnose", "refusal"),
    *(f"doubly_robust.{name}" for name in ("terms", "magic", "saying", "model_value", "folds")),
    *(f"doubly_robust.{name}" for name in ("occupancy_form", "visits", "config")),
    *("doubly_robust.fitted", "doubly_robust.fitted_correction"),
    *("estimators.base", "estimators.lfiw", "estimators.model_based"),
    *("estimators.importance", "estimators.baselines", "estimators.fqe", "estimators.dice"),
    *("estimators.doubly_robust", "estimators.corrected_model", "estimators.refitted"),
    *("sb3_callback", "catalogue"),
    "imported",
    *("agreement", "plots", "markdown", "describe", "evaluation", "metrics"),
    *(f"comparison.{name}" for name in ("rows", "judging", "tasks", "cells")),
    *(f"comparison.{name}" for name in ("identity", "runs", "store", "processes", "ray_engine")),
    *(f"comparison.{name}" for name in ("engines", "measures", "summary")),
    *(f"comparison.{name}" for name in ("text", "figures", "result", "compare")),
    *(f"bench.{name}" for name in ("rows", "measured", "playing", "value_file", "values")),
    *(f"bench.{name}" for name in ("cache", "mixing", "datasets")),
    *(f"bench.{name}" for name in ("region", "support", "support_file")),
    *(f"bench.{name}" for name in ("entries", "suites", "trials", "known", "pace")),
    *(f"bench.{name}" for name in ("results", "run")),
    *(f"bench.{name}" for name in ("units", "draws", "lists", "measures", "standings")),
    *(f"bench.{name}" for name in ("leaderboard", "leaderboard_text")),
    *(f"bench.{name}" for name in ("leaderboard_figures", "leaderboard_files")),
    "demo",
    *(f"commands.{name}" for name in ("terminal", "options", "rules", "reading")),
    *(f"commands.{name}" for name in ("policies", "truth", "demo", "info", "data", "evaluate")),
    *(f"commands.{name}" for name in ("comparison_tables", "comparison_files", "compare")),
    *("commands.leaderboard_table", "commands.bench"),
    "cli",
]
"""Every module, lowest first. A module imports only from modules before it: so there is no cycle,
and no way for a value to flow back."""

BRINGS_ENVIRONMENTS_IN = {"demo", "commands.demo", "commands.data", "commands.rules"}
"""And what is in `bench`, which is made of both."""


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {name_of(p): p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"}


def imports(path):
    """Names of modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            # `from package import module` names a module by its parts.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(names):
    """The package's modules among imported names."""
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] != "lfiw_ope":
            continue
        rest = ".".join(parts[1:])
        found.add(next((m for m in MODULES if rest == m or rest.startswith(m + ".")), rest))
    return found


def breaches(module, names):
    """Modules that `module` imports and must not."""
    allowed = set(ORDER[: ORDER.index(module)])
    return own(names) - allowed


def test_every_module_has_its_place():
    assert sorted(ORDER) == sorted(MODULES)


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_one_way(module):
    assert breaches(module, imports(MODULES[module])) == set()


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("weights", "lfiw_ope.rollout.simulate"),
        ("estimators.model_based", "lfiw_ope.estimators.lfiw.LFIW"),
        ("types", "lfiw_ope.dynamics"),
        ("ratio_fit", "lfiw_ope.LFIW"),
    ],
)
def test_the_check_sees_a_breach(module, line):
    # estimators.lfiw stands before estimators.model_based, but siblings share base alone.
    found = breaches(module, [line]) or siblings(module, [line])
    assert found


def siblings(module, names):
    package = module.split(".")[0] + "."
    return {m for m in own(names) if m.startswith(package) and m != "estimators.base"}


@pytest.mark.parametrize("module", [m for m in ORDER if m.startswith("estimators.")])
def test_estimators_share_base_alone(module):
    assert siblings(module, imports(MODULES[module])) == set()


@pytest.mark.parametrize("module", ORDER)
def test_only_the_outermost_modules_know_environments(module):
    known = {name.split(".")[0] for name in imports(MODULES[module])}
    allowed = module in BRINGS_ENVIRONMENTS_IN or module.startswith("bench.")
    assert ("lfiw_envs" in known) <= allowed


def test_environments_do_not_know_the_library():
    for path in (ROOT / "envs" / "lfiw_envs").rglob("*.py"):
        assert not own(imports(path))


def test_rooms_are_small_and_named():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "envs").rglob("*.py")]:
        assert path.stem not in {"utils", "helpers", "common", "misc"}
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 260, path
