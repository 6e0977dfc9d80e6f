"""Every code block of the README runs, in order, in one session."""

import json
import re
import shlex
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), scope)
    lines = capsys.readouterr().out.splitlines()
    printed = [line for line in lines if not line.startswith("- ")]
    assert len(lines) > len(printed)  # a diagnosis of so quick a fit has warnings
    assert [line.split()[0].split("(")[0] for line in printed] == [
        *("stepwise", "model"),
        *("behaviour", "WPDIS", "FQE", "MAGIC", "median"),
        *("90%", "None", "95%", "95%"),
        *("Actions:", "Weights", "Simulated", "Open", "Ratio:", "Refused:"),
        *("answered", "BehaviourMean", "WIS", "FQE", "ranks:", "0", "512", "1024"),
        *("model:", "LFIW:", "stepwise", "c-LFIW", "c-LFIW", "SIR", "SMC:"),
        *("mean", "E[w]", "spread"),
        *("Trajectories", "1000", "stepwise", "Swimmer-v5:", "they"),
    ]
    assert (tmp_path / "results" / "estimate.json").exists()


def test_console_blocks_are_commands_that_parse(command_line, tmp_path):
    """Their data are not here: the command line gets as far as to say so. Those of the benchmark,
    whose data would be made, say what they take."""
    commands = [line[2:] for block in blocks("console") for line in block.splitlines()]
    assert len(commands) == 6
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "lfiw-ope"
        if words[0] in ("bench", "data"):
            status, printed, said = command_line(*words, "--help", cwd=tmp_path)
            assert status == 0, said
            assert all(word in printed for word in words if word.startswith("--"))
            continue
        status, _, said = command_line(*words, cwd=tmp_path)
        assert status == 2
        assert "option" not in said
        assert "sac.zip" in said or "logs/pendulum" in said or "agents/" in said


def test_shell_blocks_name_what_exists():
    """The commands themselves run in CI (the tests) and in tests/integration/test_cli.py (demo)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    demo, tests = blocks("bash")
    for block in (demo, tests):
        words = shlex.split(block)
        assert words[:4] == ["python3", "-m", "venv", ".venv"]
        constraints = words[words.index("-c") + 1]
        assert "torch==" in (ROOT / constraints).read_text(encoding="utf-8")
        extra = re.search(r"\.\[(\w+)\]", block).group(1)
        assert extra in project["optional-dependencies"]
    assert "lfiw-ope" in project["scripts"]
    assert demo.strip().endswith(".venv/bin/lfiw-ope demo")


def test_links_and_named_paths_exist():
    for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"^\| `([\w/]+/)`", README, re.MULTILINE):
        assert (ROOT / path).is_dir(), path


SHOWN = (
    *("model", "Gaussian model", "published LFIW", "published stepwise", "c-LFIW"),
    *("c-LFIW tempered 0.5", "SIR 4", "c-SMC", "LFIW()'s form"),
)


def test_the_table_holds_the_committed_results():
    path = ROOT / "experiments" / "results" / "paper_table.json"
    groups = json.loads(path.read_text(encoding="utf-8"))["groups"]
    small = {g["task"]: g for g in groups if g["transitions"] == 50_000}
    tasks = [small[task] for task in ("swimmer", "half_cheetah", "humanoid_standup")]
    for form in SHOWN:
        rows = [task["forms"][form] for task in tasks]
        cells = [
            f"{said(r['value'])} | {r['error_over_models']:.2f} | {r['ess']:.0f}" for r in rows
        ]
        assert f"| {form} | {' | '.join(cells)} |" in README
    for task in tasks:
        truth = task["truth"]
        assert f"{said(truth['mean'])} ± {truth['standard_error']:.2g}" in README
        assert f"| {said(task['behaviour_mean_return'])} | " in README
    counts = [len(task["seeds"]) for task in tasks]
    assert f"mean value over {counts[0]}, {counts[1]} and {counts[2]} seeds" in README


def said(value):
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def test_the_table_of_speeds_holds_the_committed_results():
    path = ROOT / "experiments" / "results" / "throughput_cpu.json"
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
        assert f"| {label} | {' | '.join(said)} |" in README


def test_the_comparison_with_a_peer_holds_the_committed_results():
    path = ROOT / "experiments" / "results" / "peer_fqe.json"
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
        assert f"| {name} | {wide:.2f} | {narrow:.2f} |" in README
    for values in stored["values"].values():
        assert all(f"−{-value:.1f}" in README for value in values)
    played = stored["truth"]
    assert f"−{-played['value']:.1f} ± {played['standard_error']:.1f} when" in README


def test_tables_are_the_studies():
    for name in ("estimators_on_examples", "coverage_defaults", "refusal"):
        path = ROOT / "experiments" / "results" / f"{name}.md"
        assert path.read_text(encoding="utf-8").strip() in README
