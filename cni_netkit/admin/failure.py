"""What keeps a report from being made."""

import os


class Unreadable(Exception):
    """Something cannot be read; `errno` says why."""

    def __init__(self, what: str, number: int) -> None:
        self.errno = number
        super().__init__(f"read {what}: {os.strerror(number)}")
