"""One call of the plugin, and what it has to look like."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

JSON = dict[str, Any]

SECONDS = 120
"""After which a call has failed."""

PARAMETERS = ("COMMAND", "CONTAINERID", "NETNS", "IFNAME", "ARGS", "PATH")
ERROR_KEYS = ("cniVersion", "code", "msg")


class Unmet(Exception):
    """What a row demands and the plugin did not do; `answer` is the call where it showed."""

    def __init__(self, expected: str, found: str, answer: "Answer | None" = None) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.expected, self.found, self.answer = expected, found, answer


class Inapplicable(Exception):
    """Why a row says nothing about this plugin with this configuration."""


@dataclass(frozen=True)
class Answer:
    """A call and its outcome; `status` is None where it did not end in time."""

    parameters: Mapping[str, str]
    stdin: str
    status: int | None
    stdout: str
    stderr: str

    @property
    def verb(self) -> str:
        """CNI_COMMAND, in the words of a report."""
        return self.parameters.get("CNI_COMMAND", "a call without CNI_COMMAND")

    def unmet(self, expected: str, found: str) -> Unmet:
        """What to raise where this answer is not as it has to be."""
        return Unmet(expected, found, self)

    def succeeds(self) -> "Answer":
        """Demand exit status 0."""
        if self.status != 0:
            raise self.unmet(f"{self.verb} succeeds", self._ending())
        return self

    def fails(self) -> "Answer":
        """Demand another exit status, of a plugin that ended by itself."""
        if self.status is None or self.status <= 0:
            raise self.unmet(f"{self.verb} fails with an exit status that is not 0", self._ending())
        return self

    def fails_with(self, *codes: int) -> "Answer":
        """Demand an error of one of these codes."""
        code = self.fails().error().get("code")
        if code not in codes:
            wanted = " or ".join(map(str, codes))
            raise self.unmet(f"{self.verb} fails with code {wanted}", f"code {code!r}")
        return self

    def names(self, *words: str) -> "Answer":
        """Demand that the error tells of each of these."""
        error = self.error()
        said = f"{error.get('msg', '')} {error.get('details', '')}"
        if missing := [each for each in words if each not in said]:
            raise self.unmet(f"an error that names {', '.join(words)}", f"no {', '.join(missing)}")
        return self

    def prints_nothing(self) -> "Answer":
        """Demand silence on standard output."""
        if self.stdout:
            raise self.unmet(f"{self.verb} prints nothing on standard output", repr(self.stdout))
        return self

    def document(self) -> JSON:
        """The one JSON object that has to be on standard output."""
        try:
            found = json.loads(self.stdout)
        except ValueError as error:
            raise self.unmet("one JSON document on standard output", str(error)) from None
        if not isinstance(found, dict):
            raise self.unmet("a JSON object on standard output", type(found).__name__)
        return found

    def result(self) -> JSON:
        """What an ADD that has to work printed."""
        return self.succeeds().document()

    def error(self) -> JSON:
        """The error object that was printed."""
        return self.document()

    def _ending(self) -> str:
        if self.status is None:
            return f"no end within {SECONDS} s"
        if self.status < 0:
            return f"it was ended by {signal.Signals(-self.status).name}"
        return f"exit status {self.status}"


def call(command: str, parameters: Mapping[str, str], stdin: str) -> Answer:
    """Execute the plugin as a runtime does: the caller's environment with the parameters on top."""
    ours = {f"CNI_{name}" for name in PARAMETERS}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    process = subprocess.Popen(
        [command],
        env={**inherited, **parameters},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(stdin, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return Answer(parameters, stdin, None, "", "")
    return Answer(parameters, stdin, process.returncode, stdout, stderr)
