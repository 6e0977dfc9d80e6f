"""Tables of the pages hold what the committed results hold."""

import json

import numpy as np
from pages import ROOT, read

RESULTS = ROOT / "experiments" / "results"
PAGE = read(ROOT / "docs" / "results.md")
SHOWN = (
    *("model", "Gaussian model", "published LFIW", "published stepwise", "c-LFIW"),
    *("c-LFIW tempered 0.5", "SIR 4", "c-SMC", "LFIW()'s form"),
)


def test_the_table_holds_the_committed_results():
    path = RESULTS / "paper_table.json"
    groups = json.loads(path.read_text(encoding="utf-8"))["groups"]
    small = {g["task"]: g for g in groups if g["transitions"] == 50_000}
    tasks = [small[task] for task in ("swimmer", "half_cheetah", "humanoid_standup")]
    for form in SHOWN:
        rows = [task["forms"][form] for task in tasks]
        cells = [
            f"{said(r['value'])} | {r['error_over_models']:.2f} | {r['ess']:.0f}" for r in rows
        ]
        assert f"| {form} | {' | '.join(cells)} |" in PAGE
    for task in tasks:
        truth = task["truth"]
        assert f"{said(truth['mean'])} ± {truth['standard_error']:.2g}" in PAGE
        assert f"| {said(task['behaviour_mean_return'])} | " in PAGE
    counts = [len(task["seeds"]) for task in tasks]
    assert f"mean value over {counts[0]}, {counts[1]} and {counts[2]} seeds" in PAGE


def said(value):
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def test_the_table_of_speeds_holds_the_committed_results():
    path = RESULTS / "throughput_cpu.json"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    rows = {
        "lfiw_ope, float32": ("rollout", "float32"),
        "lfiw_ope, bfloat16": ("rollout", "bfloat16"),
        "separate `nn.Sequential`s": ("sequential", None),
        "mbrl-lib 0.2.0": ("mbrl", None),
    }
    for label, (cell, precision) in rows.items():
        found = [
            one["found"]
            for one in cells
            if one["cell"] == cell and one["of"].get("precision") == precision
        ]
        said = [f"{one['steps_per_second'] / 1000:.0f}k" for one in found]
        if cell == "rollout":
            shares = (one["share_of_matrix_rate"] for one in found)
            said = [f"{rate} ({share:.0%})" for rate, share in zip(said, shares, strict=True)]
        assert f"| {label} | {' | '.join(said)} |" in PAGE


def test_the_comparison_with_a_peer_holds_the_committed_results():
    path = RESULTS / "peer_fqe.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    for name, who, policies in (
        ("d3rlpy 2.8.1, one policy after the other", "peer", 1),
        ("lfiw_ope, 1 policy", "ours", 1),
        ("lfiw_ope, 20 policies, each", "ours", 20),
    ):
        wide, narrow = (
            stored["cells"][f"{who}, {policies} policies, width {width}, 2 threads, float32"]["ms"]
            for width in (256, 64)
        )
        assert f"| {name} | {wide:.2f} | {narrow:.2f} |" in PAGE
    for values in stored["values"].values():
        assert all(f"−{-value:.1f}" in PAGE for value in values)
    played = stored["truth"]
    assert f"−{-played['value']:.1f} ± {played['standard_error']:.1f} when" in PAGE


def test_the_demo_s_table_holds_its_seeds():
    page = read(ROOT / "README.md").replace("*", "")
    stored = [
        json.loads(path.read_text()) for path in sorted((RESULTS / "demo/ledge").glob("*.json"))
    ]
    assert [one["seed"] for one in stored] == list(range(10))
    names = (
        *("the log's mean return", "the model without weights"),
        *("the published product of weights", "FQE, 5000 updates", "`LFIW()`"),
    )
    for place, name in enumerate(names):
        rows = [one["rows"][place] for one in stored]
        values = np.array([row["value"] for row in rows])
        rmse = np.sqrt(np.mean([row["error"] ** 2 for row in rows]))
        said = f"| {name} | {values.mean():.2f} | {values.std(ddof=1):.2f} | {rmse:.2f} |"
        assert said in page


def test_tables_are_the_studies():
    for name, page in (
        ("estimators_on_examples", "results"),
        ("coverage_defaults", "trust"),
        ("refusal", "trust"),
    ):
        assert read(RESULTS / f"{name}.md").strip() in read(ROOT / "docs" / f"{page}.md")
