"""The layout rules that a program can check: floors, faces, no import circles, short files."""

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
"""A package imports only from packages on lower floors."""

SIBLINGS = {("diagnostics", "estimators")}
"""The one pair of packages on a floor that may meet."""

BRINGS_ENVIRONMENTS_IN = {"benchmark", "cli"}

WITHOUT_FACE = {"cli", "evaluation.sb3_callback"}
"""Imported by module: commands, and what needs an optional package."""


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


IMPORTS = {module: own_modules(path.read_text()) for module, path in MODULES.items()}


def breaches(imports):
    """Pairs of packages (importer, imported) against the floors."""
    pairs = {
        (module.split(".")[0], other.split(".")[0])
        for module, others in imports.items()
        for other in others
        if module != "lfiw_ope"
    }
    return {
        (package, other)
        for package, other in pairs - SIBLINGS
        if package != other and FLOORS.get(other, 9) >= FLOORS[package]
    }


def circle(imports):
    """The modules of one import circle, or None."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_every_module_is_in_a_package():
    assert {module.split(".")[0] for module in MODULES} == {"lfiw_ope", *FLOORS}
    assert not any(module.count(".") > 1 for module in MODULES)


def test_packages_import_from_lower_floors():
    assert breaches(IMPORTS) == set()


def test_there_is_no_import_circle():
    assert circle(IMPORTS) is None


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("nn.training", "dynamics.ensemble"),  # upwards
        ("nn.training", "data.trajectories"),  # a sibling
        ("stats.weights", "lfiw_ope"),  # the whole
    ],
)
def test_a_breach_is_found(module, imported):
    assert breaches(IMPORTS | {module: IMPORTS[module] | {imported}}) != set()


def test_a_circle_is_found():
    assert circle(IMPORTS | {"core.errors": {"lfiw_ope"}}) is not None


@pytest.mark.parametrize("folder", ["tests", "experiments"])
def test_tests_and_experiments_import_faces(folder):
    """What a face cannot export, because a module bears its name, is imported by its module."""
    for path in (ROOT / folder).rglob("*.py"):
        for name in imported_names(path.read_text()):
            root, *parts = name.split(".")
            if root != "lfiw_ope" or len(parts) < 3 or parts[0] in WITHOUT_FACE:
                continue
            module = ".".join(parts[:2])
            assert module in WITHOUT_FACE or f"{parts[0]}.{parts[2]}" in MODULES, (path, name)


def test_faces_say_what_is_public():
    for package in FLOORS:
        tree = ast.parse((PACKAGE / package / "__init__.py").read_text())
        imported = {
            alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        exported = [
            element.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for element in node.value.elts
        ]
        assert sorted(exported) == sorted(imported)
        assert not any(f"{package}.{name}" in MODULES for name in exported)


def test_only_outer_packages_import_environments():
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
