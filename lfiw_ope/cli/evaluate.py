"""`lfiw-ope evaluate`: what a policy is worth, from a log."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from lfiw_ope.cli.inputs import (
    SOURCES,
    Actions,
    DropTerminal,
    Episodes,
    MaxEpisodeSteps,
    Rules,
    read_log,
    rules_to_simulate,
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
    digits,
    require,
    tell_end,
    typed,
)
from lfiw_ope.core.errors import DataError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.validation import whole
from lfiw_ope.diagnostics.config import DiagnosisConfig
from lfiw_ope.estimators.registry import CATALOGUE, SIMULATING, Options, estimator_named
from lfiw_ope.evaluation.evaluate import Evaluation, evaluate, save_evaluation
from lfiw_ope.stats.estimate import Estimate


def evaluate_command(
    data: Annotated[str, typer.Option(help=SOURCES)],
    policy: Annotated[Path, typer.Option(help="stable-baselines3 .zip, .safetensors, .onnx, .pt")],
    horizon: Horizon,
    env: Env = None,
    discount: Discount = 1.0,
    seed: Annotated[int, typer.Option(help="of training and rollouts")] = 0,
    device: Device = "cpu",
    output: Output = None,
    as_json: AsJson = False,
    estimator: Annotated[str, typer.Option(help=f"one of {', '.join(CATALOGUE)}")] = "lfiw",
    rollouts: Rollouts = None,
    updates: Updates = None,
    precision: Precision = None,
    deterministic: Deterministic = False,
    activation: Activation = None,
    vec_normalize: Annotated[
        Path | None, typer.Option(help="VecNormalize statistics (.pkl) of a .zip")
    ] = None,
    trust: Trust = False,
    episodes: Episodes = None,
    max_episode_steps: MaxEpisodeSteps = None,
    drop_terminal: DropTerminal = False,
    actions: Actions = None,
    learn_rules: LearnRules = False,
    refuse: Refuse = False,
) -> None:
    """Estimate what a policy is worth, from logged data alone."""
    from lfiw_ope.policies.files import load_policy

    estimand = Estimand(horizon, discount)
    whole("The seed", seed, least=0)
    options = Options(rollouts=rollouts, updates=updates, precision=precision, device=device)
    estimator_named(
        estimator, estimand, options
    )  # what cannot be is refused before the log is read
    if output is not None:
        check_folder(output)
        require("plots", "matplotlib")
    if not policy.is_file():
        raise DataError(f"There is no policy file {policy}.")
    terminal = console(stderr=as_json)
    log = read_log(
        data,
        env,
        max_episode_steps=max_episode_steps,
        drop_terminal=drop_terminal,
        episodes=episodes,
        actions=actions,
        terminal=terminal,
    )
    target = load_policy(
        policy,
        deterministic=deterministic,
        trust=trust,
        activation=activation,
        vec_normalize=vec_normalize,
        state_size=log.state_size,
        action_spec=log.action_spec,
    )
    terminal.print(repr(log), soft_wrap=True)
    rules = Rules()
    if estimator in SIMULATING:
        rules = rules_to_simulate(
            env, log, learn=learn_rules, drop_terminal=drop_terminal, terminal=terminal
        )
    options = replace(options, reward=rules.reward, termination=rules.termination)
    chosen = estimator_named(estimator, estimand, options)
    started = time.perf_counter()
    with LiveProgress(terminal) as progress:
        result = evaluate(
            *(log, target, chosen),
            seed=seed,
            diagnosis=DiagnosisConfig(device=device),
            refuse=refuse,
            progress=progress,
        )
    command = typed()
    about = {"command": command, "policy": str(policy), "source": data, "rules": str(rules)}
    if as_json:
        typer.echo(json.dumps({**about, **result.to_dict()}, indent=1, allow_nan=False))
    else:
        terminal.print(_table(result, policy))
    _conclude(terminal, result, output, f"evaluate_{policy.stem}", about, started)


def _conclude(
    terminal: Console,
    result: Evaluation,
    output: Path | None,
    name: str,
    about: dict[str, str],
    started: float,
) -> None:
    """What the data say of the result, what is wrong with it, and where it was saved."""
    if result.diagnosis is not None:
        for line in result.diagnosis.lines():
            terminal.print(line, soft_wrap=True)
    for reason in dict.fromkeys(e.no_interval for e in result.estimates if e.no_interval):
        terminal.print(f"No interval: {reason}", soft_wrap=True)
    for warning in dict.fromkeys(w for estimate in result.estimates for w in estimate.warnings):
        terminal.print(f"Warning: {warning}", soft_wrap=True)
    saved: tuple[Path, ...] = ()
    replaced = False
    if output is not None:
        replaced = (output / f"{name}.json").exists()
        saved = save_evaluation(result, output, name, about)
    tell_end(terminal, started, saved, replaced=replaced)


def _table(result: Evaluation, policy: Path) -> Table:
    estimand, behaviour = result.estimate.estimand, result.behaviour
    cut = f"; {behaviour.cut_short} cut short of the horizon" if behaviour.cut_short else ""
    if behaviour.steps < estimand.horizon:
        cut += f", all by step {behaviour.steps}, where its mean stops"
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{policy.name}: value over {estimand.horizon} steps, discount {estimand.discount:g}",
        title_justify="left",
        caption="± is the standard error of what was sampled, simulated rollouts or the "
        f"{behaviour.episodes} logged episodes{cut}. It does not cover the error of what was "
        "learned; an interval does as far as the log shows it.",
        caption_justify="left",
    )
    for name in ("", "value", "±", "interval", "ESS"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for estimate in result.estimates:
        noise = estimate.noise
        table.add_row(
            estimate.label,
            digits(estimate.value, 4),
            "–" if noise is None else digits(noise, 2),
            _interval(estimate),
            estimate.ess_of,
        )
    error = behaviour.standard_error
    table.add_row(
        "behaviour's mean return",
        digits(behaviour.mean, 4),
        "–" if error is None else digits(error, 2),
        "",
        "",
    )
    return table


def _interval(estimate: Estimate) -> str:
    """The widest of those that it has."""
    if not estimate.intervals:
        return "–"
    one = estimate.intervals[-1]
    return f"{100 * one.level:.4g} % [{digits(one.low, 4)}, {digits(one.high, 4)}]"
