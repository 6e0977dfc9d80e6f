"""The layout rules that a program can check: floors, no import circles, short files."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lfiw_ope"
MAX_LINES = 600

FLOORS = {
    "core": 1,
    **dict.fromkeys(("nn", "stats", "data"), 2),
    **dict.fromkeys(("policies", "dynamics"), 3),
    "ratios": 4,
    "estimators": 5,
    "diagnostics": 5,
    "evaluation": 6,
    "benchmark": 7,
    "cli": 8,
}
"""The planned packages. A package imports only from packages on lower floors, also by way of
modules that are not in a planned package yet."""

SIBLINGS = {("diagnostics", "estimators")}
"""The one pair of packages on a floor that may meet."""

NOT_YET = {("data", "policies")}
"""Imports that the plan forbids and the code still has: `data.collect` acts with policies."""

BRINGS_ENVIRONMENTS_IN = {"demo", "commands", "bench", "benchmark", "cli"}


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "lfiw_ope"


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imported_names(text):
    """Dotted names that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_modules(text):
    """The library's modules that a file imports."""
    found = set()
    for name in imported_names(text):
        root, *parts = name.split(".")
        if root != "lfiw_ope":
            continue
        while parts and ".".join(parts) not in MODULES:
            parts.pop()
        found.add(".".join(parts) or "lfiw_ope")
    return found


def package_of(module):
    """The planned package that a module is in, or None."""
    name = module.split(".")[0]
    return name if name in FLOORS and (PACKAGE / name).is_dir() else None


IMPORTS = {module: own_modules(path.read_text()) for module, path in MODULES.items()}


def reached_packages(module, imports):
    """Planned packages that a module imports, directly or through unplanned modules."""
    found, seen, waiting = set(), set(), list(imports[module])
    while waiting:
        other = waiting.pop()
        if other in seen:
            continue
        seen.add(other)
        if package_of(other):
            found.add(package_of(other))
        else:
            waiting += imports.get(other, ())
    return found


def breaches(imports):
    """Pairs of packages (importer, imported) against the floors."""
    pairs = {
        (package_of(module), other)
        for module in imports
        if package_of(module)
        for other in reached_packages(module, imports)
    }
    return {
        (package, other)
        for package, other in pairs - SIBLINGS
        if package != other and FLOORS[other] >= FLOORS[package]
    }


def circle(imports):
    """The modules of one import circle, or None."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_packages_import_from_lower_floors():
    assert breaches(IMPORTS) == NOT_YET


def test_there_is_no_import_circle():
    assert circle(IMPORTS) is None


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("nn.fit", "dynamics.ensemble"),  # upwards
        ("nn.fit", "data.log"),  # a sibling
        ("nn.fit", "fitted"),  # upwards by way of a module that is in no package yet
    ],
)
def test_a_breach_is_found(module, imported):
    assert breaches(IMPORTS | {module: IMPORTS[module] | {imported}}) != NOT_YET


def test_a_circle_is_found():
    assert circle(IMPORTS | {"errors": {"lfiw_ope"}}) is not None


def test_only_outer_modules_import_environments():
    for module, path in MODULES.items():
        uses = {name.split(".")[0] for name in imported_names(path.read_text())}
        assert "lfiw_envs" not in uses or module.split(".")[0] in BRINGS_ENVIRONMENTS_IN, module


def test_environments_do_not_import_the_library():
    for path in (ROOT / "envs" / "lfiw_envs").rglob("*.py"):
        assert not own_modules(path.read_text())


@pytest.mark.parametrize("folder", [PACKAGE, ROOT / "envs"])
def test_files_are_short_and_named_for_their_content(folder):
    for path in folder.rglob("*.py"):
        assert path.stem not in {"utils", "helpers", "common", "misc"}
        assert len(path.read_text().splitlines()) <= MAX_LINES, path
