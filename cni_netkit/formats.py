"""Formats of what is kept on a node's disk: each has a number, and a way to the next.

The number is the key "format" of the outermost object, in every format to come: so each release can
tell what it knows from what only a newer one does.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

JSON = dict[str, Any]


class Newer(Exception):
    """A newer release wrote it; `found` and `known` are numbers of formats."""

    def __init__(self, found: int, known: int) -> None:
        self.found = found
        self.known = known
        super().__init__(f"format {found} is newer than {known}")


@dataclass(frozen=True)
class Format:
    """Files of one kind. A migration makes the fields of the next format of those of one.

    The first is that from format 1, which is also that of files without a number.
    """

    migrations: tuple[Callable[[JSON], JSON], ...] = ()

    @property
    def number(self) -> int:
        """That of today's format."""
        return 1 + len(self.migrations)

    def read(self, data: bytes) -> JSON:
        """The fields of a file, in today's format. Raises `Newer`, ValueError for what is none."""
        try:
            fields = json.loads(data)
            number = fields.pop("format", 1)
            if type(number) is not int or number < 1:
                raise ValueError(f"{number!r} is no number of a format")
            if number > self.number:
                raise Newer(number, self.number)
            for migrate in self.migrations[number - 1 :]:
                fields = migrate(fields)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not what it should be: {error!r}") from None
        return dict(fields)

    def write(self, fields: Mapping[str, Any]) -> bytes:
        """A file of today's format."""
        return json.dumps({"format": self.number, **fields}, separators=(",", ":")).encode()
