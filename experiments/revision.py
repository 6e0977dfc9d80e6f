"""Which code made a result."""

import subprocess
from pathlib import Path


def commit():
    """Of this tree; "+" where it was changed since."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
