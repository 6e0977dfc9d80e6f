"""Are all estimates bit-equal at two commits? For refactors, which may move no number.

    git worktree add /tmp/before COMMIT
    python experiments/same_numbers.py dump /tmp/before before.json
    python experiments/same_numbers.py dump . after.json
    python experiments/same_numbers.py compare before.json after.json

`dump` fits every estimator of a tree's contract tests (`tests/contract/test_estimators.py`) to each
of their test-beds and estimands, in float32 on one thread, and stores the estimates of two
policies: value, standard errors, intervals, effective sample sizes, and a digest of returns and
log-weights. `compare` lists what differs and exits with 1 where anything does. Estimates that only
one file has are listed, too, and are not a difference: an option may be new, or gone. Both dumps
must be made on one machine.
"""

import hashlib
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import typer

app = typer.Typer(add_completion=False)


def contract(tree: Path) -> Any:
    """The module of a tree's contract tests; its library is imported with it."""
    tree = tree.resolve()
    sys.path[:0] = [str(tree), str(tree / "envs"), str(tree / "tests")]
    path = tree / "tests" / "contract" / "test_estimators.py"
    spec = importlib.util.spec_from_file_location("contract", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["contract"] = module
    spec.loader.exec_module(module)
    return module


def plain(estimate: Any) -> dict[str, Any]:
    """All numbers of an estimate that a refactor may not move."""
    digest = hashlib.sha256()
    for array in (estimate.returns, estimate.log_weights, estimate.ess_by_step):
        digest.update(b"none" if array is None else array.tobytes())
    ends = [(one.level, one.low, one.high) for one in estimate.intervals]
    names = (
        *("value", "standard_error", "mc_standard_error", "ess", "raw_ess"),
        "classifier_log_loss",
    )
    return {
        **{name: repr(getattr(estimate, name, None)) for name in names},
        "intervals": repr(ends),
        "arrays": digest.hexdigest(),
    }


@app.command()
def dump(tree: Path, output: Path) -> None:
    """Fit and store."""
    torch.set_num_threads(1)
    tests = contract(tree)
    found: dict[str, Any] = {}
    for name, case in tests.CASES.items():
        for bed in tests.BEDS:
            for asked, estimand in tests.ESTIMANDS.items():
                started = time.perf_counter()
                _, behaviour, log = tests.log_for(bed)
                policies = [behaviour, tests.neural((None, behaviour, log), 1)[0]]
                try:
                    estimates = case.make(estimand).fit(log, seed=0).estimate(policies)
                    numbers: Any = [plain(estimate) for estimate in estimates]
                except tests.ope.OPEError as error:
                    numbers = f"{type(error).__name__}: {error}"
                found[f"{name}; {bed}; {asked}"] = numbers
                typer.echo(f"{name}; {bed}; {asked}: {time.perf_counter() - started:.1f} s")
    library = Path(tests.ope.__file__).parent
    output.write_text(json.dumps({"library": str(library), "estimates": found}, indent=1) + "\n")


@app.command()
def compare(before: Path, after: Path) -> None:
    """List what differs."""
    one, other = (json.loads(path.read_text())["estimates"] for path in (before, after))
    different = [key for key in one if key in other and one[key] != other[key]]
    for key in different:
        typer.echo(f"differs: {key}\n  {one[key]}\n  {other[key]}")
    for key in sorted(one.keys() ^ other.keys()):
        typer.echo(f"only in {before if key in one else after}: {key}")
    typer.echo(f"{len(one.keys() & other.keys())} in both, {len(different)} differ")
    raise typer.Exit(int(bool(different)))


if __name__ == "__main__":
    app()
