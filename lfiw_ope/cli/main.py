"""The command line: `lfiw-ope`."""

import sys
from typing import Annotated, NoReturn

import typer

from lfiw_ope.cli.bench import bench_command
from lfiw_ope.cli.compare import compare_command
from lfiw_ope.cli.data import data_command
from lfiw_ope.cli.demo import demo
from lfiw_ope.cli.evaluate import evaluate_command
from lfiw_ope.cli.info import info
from lfiw_ope.cli.terminal import console
from lfiw_ope.core.errors import OPEError
from lfiw_ope.core.serialization import __version__

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Off-policy evaluation by likelihood-free importance weighting.",
)
app.command()(demo)
app.command("evaluate")(evaluate_command)
app.command("compare")(compare_command)
app.command("bench")(bench_command)
app.command()(info)
app.command("data")(data_command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lfiw-ope {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Off-policy evaluation by likelihood-free importance weighting."""


UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]
"""What a wrong option or a missing argument raises: click's ClickException, which some releases of
typer take from click and others bring themselves."""


INTERRUPTED = 130
"""What a shell calls a command that Ctrl-C ended."""


def main() -> None:
    """Run the command line: 2 and one sentence for bad input, 1 for a run that failed."""
    try:
        # Not standalone: typer would put its sentence into a frame, under a usage line.
        status = app(prog_name="lfiw-ope", standalone_mode=False)
        if status == INTERRUPTED:
            _stop("Interrupted.", INTERRUPTED)
        sys.exit(status)
    except UsageProblem as error:
        if not len(sys.argv) > 1:
            error.show()  # type: ignore[attr-defined]  # no arguments: the help
            sys.exit(2)
        context = getattr(error, "ctx", None)
        command = "lfiw-ope" if context is None else context.command_path
        message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        _stop(f"{message}; see {command} --help.", 2)
    except OPEError as error:
        _stop(str(error), 1 if isinstance(error, RuntimeError | ImportError) else 2)
    except (OSError, MemoryError) as error:
        # The machine's doing, not ours: a full disk, a folder that may not be written to.
        _stop(f"The run failed: {error or 'out of memory'}.", 1)
    except RuntimeError as error:
        # How torch says that memory ran out, on a CPU and on a GPU; anything else is a bug.
        if "alloc" not in str(error) and "out of memory" not in str(error):
            raise
        reason = str(error).splitlines()[0].rstrip(".")
        _stop(f"The run failed for want of memory ({reason}); take fewer rollouts.", 1)


def _stop(sentence: str, status: int) -> NoReturn:
    console(stderr=True).print(f"lfiw-ope: {sentence}", style="red", soft_wrap=True)
    sys.exit(status)
