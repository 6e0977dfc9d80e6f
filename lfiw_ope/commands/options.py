"""Options that commands share: each means the same in all of them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lfiw_ope.errors import ConfigError

Horizon = Annotated[int, typer.Option(help="T, steps that the value is over")]
Discount = Annotated[float, typer.Option(help="γ, in [0, 1]")]
Env = Annotated[
    str | None, typer.Option(help="Gymnasium id, or package.module:RECORD of a task of your own")
]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
Output = Annotated[Path | None, typer.Option(help="folder for JSON and PNG")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON alone to stdout")]
Rollouts = Annotated[
    int | None, typer.Option(help="simulated rollouts of each policy; 1000 by default")
]
Updates = Annotated[
    int | None, typer.Option(help="training steps, in place of the estimator's own number")
]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"] | None,
    typer.Option(help="of training and rollouts; else the estimator's default"),
]
Deterministic = Annotated[bool, typer.Option(help="act by the policy's mode")]
Activation = Annotated[
    str | None, typer.Option(help="of a .zip that does not say it: tanh, relu or silu")
]
Trust = Annotated[bool, typer.Option(help="execute what a policy file holds")]
LearnRules = Annotated[
    bool, typer.Option(help="learn reward and termination even where they are known")
]
Refuse = Annotated[
    bool, typer.Option("--refuse", help="give no number where the data cannot tell it")
]


def whole_in(option: str, said: str) -> int:
    """A whole number of 1 or more, such as 100000 or 1e5.

    Args:
        option: that it was given by.
        said: what it was given.

    Raises:
        ConfigError: if it is none.
    """
    try:
        number = float(said)
        if number >= 1 and number == int(number):
            return int(number)
    except (ValueError, OverflowError):
        pass
    raise ConfigError(f"{option} is {said!r}; expected a whole number, such as 100000 or 1e5.")


def listed_in(option: str, said: str, how: str) -> tuple[str, ...]:
    """Names by commas, each once.

    Args:
        option: that they were given by.
        said: what it was given.
        how: to give them, for the message.

    Raises:
        ConfigError: if there is none.
    """
    names = tuple(dict.fromkeys(name.strip() for name in said.split(",") if name.strip()))
    if not names:
        raise ConfigError(f"{option} is {said!r}; name one or more, {how}.")
    return names
