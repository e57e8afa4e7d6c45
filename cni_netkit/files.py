"""Files that others read while they are replaced."""

import os
from pathlib import Path


def replace(path: Path, data: bytes) -> None:
    """Have `data` in a file that all may read, by renaming: readers find the old or the new one.

    Its first name begins with a dot and ends otherwise, so that no runtime takes it for a
    configuration. Raises OSError.
    """
    new = path.with_name(f".{path.name}.new")
    with open(new, "wb") as file:
        os.fchmod(file.fileno(), 0o644)  # whatever the process's mask is
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)
