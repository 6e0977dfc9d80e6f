"""Size of the library, and the files that one fit and one estimate of `LFIW` pass through.

    python experiments/layout.py

A file is passed through where one of its functions is called.
"""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from lfiw_envs import get_task

import lfiw_ope as ope

PACKAGE = Path(ope.__file__).parent


def imports_of(path: Path) -> set[str]:
    """Packages of the library that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lfiw_ope."):
            found.add(str(node.module).split(".")[1])
    return found


def floors() -> list[list[str]]:
    """Packages by floor: each stands above all that it imports."""
    packages = [path.parent for path in PACKAGE.glob("*/__init__.py")]
    graph = {
        package.name: set().union(*(imports_of(path) for path in package.rglob("*.py")))
        - {package.name}
        for package in packages
    }
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    found = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        found.append(ready)
        sorter.done(*ready)
    return found


def passed_through() -> list[str]:
    """Files whose functions run in a default fit and estimate."""
    task = get_task("swimmer")
    behaviour = ope.load_actor(task.policy_path("behaviour"))
    target = ope.load_actor(task.policy_path("target"))
    data = ope.collect(task.make_vector(20), behaviour, episodes=40, seed=0)
    quick = ope.FitConfig(updates=50)
    config = ope.LFIWConfig(
        dynamics=ope.DynamicsConfig(hidden=(32, 32), fit=quick),
        ratio=ope.RatioConfig(fit=quick),
        rollouts=100,
    )
    files = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    lfiw = ope.LFIW(ope.Estimand(horizon=20), config)
    sys.setprofile(watch)
    try:
        lfiw.fit(data, seed=0).estimate(target)
    finally:
        sys.setprofile(None)
    own = (Path(name) for name in files if name.startswith(str(PACKAGE)))
    return sorted(str(path.relative_to(PACKAGE)) for path in own)


def main() -> None:
    sizes = {
        str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    largest = max(sizes, key=sizes.__getitem__)
    lines = sum(sizes.values())
    typer.echo(f"{len(sizes)} files, {lines} lines, largest {largest}: {sizes[largest]}")
    for number, packages in enumerate(floors(), 1):
        typer.echo(f"floor {number}: {', '.join(packages)}")
    files = passed_through()
    typer.echo(f"{len(files)} files in one fit and estimate: {', '.join(files)}")


if __name__ == "__main__":
    typer.run(main)
