"""Programs that `tests/lab/fetch` has put somewhere."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def fetched(what: str) -> Path:
    """The folder; what is not there yet is fetched."""
    command = [str(ROOT / "tests" / "lab" / "fetch"), what]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())
