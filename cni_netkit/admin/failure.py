"""What keeps a command from doing its work."""

import os


class Unreadable(Exception):
    """Something cannot be read; `errno` says why."""

    def __init__(self, what: str, number: int) -> None:
        self.errno = number
        super().__init__(f"read {what}: {os.strerror(number)}")


class Misuse(Exception):
    """The command line cannot be meant as it is; nothing was done."""
