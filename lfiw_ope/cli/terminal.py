"""Progress, tables and checks of the command line, and options that commands share."""

import importlib.util
import os
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lfiw_ope.core.errors import ConfigError, DataWarning, MissingDependencyError
from lfiw_ope.core.validation import whole

QUIET = 300.0
"""Seconds after which a log is told the next thing that is done, tenth or not."""


class LiveProgress:
    """Bars on a terminal; a line for each tenth of a stage in a log, or one in five minutes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.perf_counter()
        self.told: dict[str, tuple[int, float]] = {}
        self.tasks: dict[str, TaskID] = {}
        self.bars: Progress | None = None
        if console.is_terminal:
            self.bars = Progress(
                TextColumn("{task.description:<10}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )

    def __enter__(self) -> "LiveProgress":
        if self.bars is not None:
            self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if self.bars is not None:
            if stage not in self.tasks:
                self.tasks[stage] = self.bars.add_task(stage, total=total, note="")
            elif done < self.bars.tasks[self.tasks[stage]].completed:  # another round of it
                self.bars.reset(self.tasks[stage], total=total)
            self.bars.update(self.tasks[stage], completed=done, total=total)
            if note:
                self.bars.update(self.tasks[stage], note=note)
            return
        tenth, seconds = 10 * done // total, time.perf_counter() - self.started
        last, when = self.told.get(stage, (-1, seconds))
        if tenth > last or seconds - when > QUIET:
            self.told[stage] = max(tenth, last), seconds
            self.console.print(f"{seconds:6.1f} s  {stage} {done}/{total}  {note}".rstrip())


def console(*, stderr: bool = False) -> Console:
    """As wide as the terminal; in a log, wide enough for a table. No word is taken for markup."""
    found = Console(stderr=stderr, highlight=False, markup=False)
    if found.is_terminal:
        return found
    return Console(stderr=stderr, highlight=False, markup=False, width=100)


@contextmanager
def plain_warnings(terminal: Console) -> Iterator[None]:
    """What the package warns of, in plain lines: there is no line of the user's to point at."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, DataWarning):
            terminal.print(f"Warning: {message}", soft_wrap=True)
        else:
            others(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        # joblib ends a process that has grown, and starts another: nobody need do anything. Of one
        # that died, its own error tells.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
        others, warnings.showwarning = warnings.showwarning, show
        yield


def require(extra: str, *packages: str) -> None:
    """Packages that will be needed, looked for before minutes of work and not after.

    Raises:
        MissingDependencyError: if one is not installed.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"This needs {package}, which is not installed: pip install 'lfiw-ope[{extra}]'."
            )


def check_folder(folder: Path) -> None:
    """A folder that results can go to; it need not exist yet.

    Raises:
        ConfigError: if something on the way to it is a file, or may not be written to.
    """
    whole = folder.resolve()
    for place in (whole, *whole.parents):
        if place.exists() and not place.is_dir():
            raise ConfigError(f"The output {folder} is a file; name a folder.")
    above = next(place for place in (whole, *whole.parents) if place.exists())
    if not os.access(above, os.W_OK):
        raise ConfigError(f"The output {folder} may not be written to; name another folder.")


def typed() -> str:
    """The command, as a shell takes it."""
    return _as_text(shlex.join(["lfiw-ope", *sys.argv[1:]]))


def _as_text(words: str) -> str:
    """With the bytes of names that are not UTF-8 escaped: no file and no terminal takes them."""
    return words.encode(errors="backslashreplace").decode()


def saved_note(paths: tuple[Path, ...], *, replaced: bool) -> str:
    """What was written, and whether it took the place of something."""
    *most, last = map(str, paths)
    names = f"{', '.join(most)} and {last}" if most else last
    return f"Saved {_as_text(names)}" + (", in place of an earlier run's." if replaced else ".")


def tell_end(
    terminal: Console, started: float, saved: tuple[Path, ...] = (), *, replaced: bool = False
) -> None:
    """The last line: how long all of it took, and what was written.

    Args:
        terminal: to say it on.
        started: what `time.perf_counter()` said before the work.
        saved: files.
        replaced: whether they took the place of an earlier run's.
    """
    note = f"{time.perf_counter() - started:.0f} s in all."
    if saved:
        note += f" {saved_note(saved, replaced=replaced)}"
    terminal.print(note, soft_wrap=True)


def digits(value: float, count: int) -> str:
    """A number to so many digits, and to the whole number where it has more: no 1.2e+04."""
    return f"{value:.0f}" if abs(value) >= 10**count else f"{value:.{count}g}"


def require_engine(jobs: int, engine: str) -> None:
    """What running side by side needs.

    Raises:
        ConfigError: if there are fewer than one of them.
        MissingDependencyError: if a package is not installed.
    """
    whole("jobs", jobs, least=1)
    if engine == "ray":
        require("ray", "ray")
    elif jobs > 1:
        require("compare", "joblib")


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
