"""The leaderboard of a benchmark's stored results; nothing is run.

    lfiw-ope bench ladder-small --jobs 2 --output runs/ladder-small
    python experiments/leaderboard.py runs/ladder-small/results.json

writes `results/leaderboard.{json,md,png}` beside this file. The same results make the same files.
"""

import argparse
from pathlib import Path

from cells import commit
from rich.console import Console

from lfiw_ope.benchmark import BenchResults, write_leaderboard
from lfiw_ope.cli.leaderboard_table import leaderboard_table
from lfiw_ope.core import OPEError

FOLDER = Path(__file__).parent / "results"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results.json of lfiw-ope bench")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write to")
    parser.add_argument("--commit", default=commit(), help="of the code that made the results")
    options = parser.parse_args()
    try:
        found = BenchResults.read(options.results)
        about = {**found.head, "commit": options.commit}
        board, saved = write_leaderboard(found.rows, options.output, about)
    except (OPEError, OSError) as error:
        parser.error(str(error))
    terminal = Console(highlight=False, markup=False)
    terminal.print(leaderboard_table(board, terminal))
    print(f"Saved {', '.join(map(str, saved))}")


if __name__ == "__main__":
    main()
