"""`lfiw-ope compare`: estimators and policies side by side, from a log."""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from lfiw_ope.cli.inputs import (
    SOURCES,
    Actions,
    DropTerminal,
    Episodes,
    MaxEpisodeSteps,
    Rules,
    load_policies,
    policy_files,
    read_log,
    read_truth,
    rules_to_simulate,
)
from lfiw_ope.cli.tables import (
    estimates_tables,
    metrics_tables,
    save_comparison,
    warnings_of,
    without_value,
)
from lfiw_ope.cli.terminal import (
    Activation,
    AsJson,
    Deterministic,
    Device,
    Discount,
    Env,
    Horizon,
    LearnRules,
    LiveProgress,
    Output,
    Precision,
    Refuse,
    Rollouts,
    Trust,
    Updates,
    check_folder,
    console,
    listed_in,
    require,
    require_engine,
    tell_end,
    typed,
)
from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.validation import whole
from lfiw_ope.estimators.registry import CATALOGUE, SIMULATING, Options, estimators_named
from lfiw_ope.evaluation.compare import compare
from lfiw_ope.evaluation.table import Comparison

USUAL = "lfiw,model,fqe,wis,behaviour"


def compare_command(
    data: Annotated[str, typer.Option(help=SOURCES)],
    policies: Annotated[
        list[str], typer.Option(help="files, or a pattern such as 'agents/*.zip'; as for evaluate")
    ],
    horizon: Horizon,
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    env: Env = None,
    discount: Discount = 1.0,
    estimators: Annotated[
        str, typer.Option(help=f"some of {', '.join(CATALOGUE)}, by commas")
    ] = USUAL,
    seeds: Annotated[int, typer.Option(help="how many: 0, 1, …")] = 1,
    truth: Annotated[
        Path | None,
        typer.Option(help='true values: JSON {"name": value}, or CSV of policy and value'),
    ] = None,
    k: Annotated[int, typer.Option("--k", help="of regret@k, precision@k, Sharpe ratio@k")] = 1,
    device: Device = "cpu",
    output: Output = None,
    resume: Annotated[bool, typer.Option(help="go on with the output folder's cells")] = False,
    jobs: Annotated[int, typer.Option(help="processes")] = 1,
    engine: Annotated[
        Literal["joblib", "ray"], typer.Option(help="this machine, or a Ray cluster")
    ] = "joblib",
    as_json: AsJson = False,
    rollouts: Rollouts = None,
    updates: Updates = None,
    precision: Precision = None,
    deterministic: Deterministic = False,
    activation: Activation = None,
    vec_normalize: Annotated[
        str | None,
        typer.Option(
            help="VecNormalize statistics of the .zip files, such as '{folder}/{stem}.pkl'"
        ),
    ] = None,
    trust: Trust = False,
    episodes: Episodes = None,
    max_episode_steps: MaxEpisodeSteps = None,
    drop_terminal: DropTerminal = False,
    actions: Actions = None,
    learn_rules: LearnRules = False,
    refuse: Refuse = False,
) -> None:
    """Compare estimators on many policies, from logged data alone."""
    estimand, names = (
        Estimand(horizon, discount),
        listed_in("--estimators", estimators, f"such as {USUAL}"),
    )
    whole("seeds", seeds, least=1)
    whole("k", k, least=1)
    options = Options(rollouts=rollouts, updates=updates, precision=precision, device=device)
    estimators_named(names, estimand, options)  # what cannot be is refused before the log is read
    _check_saving(output, resume=resume, jobs=jobs, engine=engine)
    # A pattern without quotes is filled in by the shell, which makes arguments of all but one.
    files = policy_files([*policies, *(more or ())])
    terminal = console(stderr=as_json)
    known = None if truth is None else read_truth(truth, files, terminal)
    log = read_log(
        data,
        env,
        max_episode_steps=max_episode_steps,
        drop_terminal=drop_terminal,
        episodes=episodes,
        actions=actions,
        terminal=terminal,
    )
    targets = load_policies(
        files,
        log,
        deterministic=deterministic,
        trust=trust,
        activation=activation,
        vec_normalize=vec_normalize,
    )
    terminal.print(repr(log), soft_wrap=True)
    rules = Rules()
    if any(name in SIMULATING for name in names):
        rules = rules_to_simulate(
            env, log, learn=learn_rules, drop_terminal=drop_terminal, terminal=terminal
        )
    options = replace(options, reward=rules.reward, termination=rules.termination)
    started = time.perf_counter()
    with LiveProgress(terminal) as progress:
        result = compare(
            estimators_named(names, estimand, options),
            log,
            targets,
            known,
            range(seeds),
            store=output,
            resume=resume,
            jobs=jobs,
            engine=engine,
            refuse=refuse,
            progress=progress,
        )
    about = {
        "command": typed(),
        "source": data,
        "policies": {name: str(path) for name, path in files.items()},
        "rules": str(rules),
    }
    _conclude(terminal, result, k, about, output, as_json=as_json, started=started)
    if not any(row.status == "ok" for row in result.rows):
        raise typer.Exit(1)


def _check_saving(output: Path | None, *, resume: bool, jobs: int, engine: str) -> None:
    """What is needed besides the log, looked for before the work and not after.

    Raises:
        ConfigError: if the folder cannot be used, or holds a run that is not to be gone on with.
        MissingDependencyError: if a package is not installed.
    """
    require_engine(jobs, engine)
    if output is None:
        if resume:
            raise ConfigError("--resume goes on with a folder; name it by --output.")
        return
    check_folder(output)
    require("compare", "filelock", "pandas", "matplotlib")
    if (output / "run.json").exists() and not resume:
        raise ConfigError(
            f"{output} holds a comparison; add --resume to go on with it, or name another folder."
        )


def _conclude(
    terminal: Console,
    result: Comparison,
    k: int,
    about: dict[str, Any],
    output: Path | None,
    *,
    as_json: bool,
    started: float,
) -> None:
    """The tables or the JSON, what failed, what is wrong, and where it was saved."""
    scores = result.summary(k=k)
    stored = {**about, **result.to_dict(), "k": k, "summary": [asdict(score) for score in scores]}
    text = json.dumps(stored, indent=1, allow_nan=False)
    if as_json:
        typer.echo(text)
    else:
        parts = ["", *estimates_tables(result, terminal), ""]
        if result.truth is not None:
            parts += [*metrics_tables(result, scores, k, terminal), ""]
        for part in parts:
            terminal.print(part)
    for line in without_value(result):
        terminal.print(line, soft_wrap=True)
    for warning in warnings_of(result):
        terminal.print(f"Warning: {warning}", soft_wrap=True)
    saved: tuple[Path, ...] = ()
    replaced = False
    if output is not None:
        replaced = (output / "comparison.json").exists()
        saved = save_comparison(result, scores, text, output)
    tell_end(terminal, started, saved, replaced=replaced)
