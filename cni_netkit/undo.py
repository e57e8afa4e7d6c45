"""Taking things back: last done, first undone; each tried, whatever became of the others."""

from collections.abc import Callable

from cni_netkit.spec.errors import CNIError, Code


def as_internal(error: Exception) -> CNIError:
    """What an error becomes of which nothing is known here."""
    return CNIError(Code.INTERNAL, f"{type(error).__name__}: {error}")


class Failures:
    """What could not be undone; `translate` makes other errors CNI errors."""

    def __init__(self, translate: Callable[[Exception], CNIError] = as_internal) -> None:
        self._errors: list[CNIError] = []
        self._translate = translate

    def __bool__(self) -> bool:
        return bool(self._errors)

    def run(self, what: str, action: Callable[[], None]) -> None:
        """Call `action`; note its failure as one to `what`."""
        try:
            action()
        except CNIError as error:
            self._errors.append(error)
        except Exception as error:
            failure = self._translate(error)
            self._errors.append(
                CNIError(failure.code, f"{what}: {failure.message}", failure.details)
            )

    def add(self, error: CNIError) -> None:
        """Note a failure."""
        self._errors.append(error)

    def attach_to(self, error: BaseException) -> None:
        """Add the failures to the error that made undoing necessary; it stays the first."""
        if isinstance(error, CNIError):
            for failure in self._errors:
                error.also(f"undoing failed too: {failure.message}")

    def raise_first(self) -> None:
        """Raise the first failure, the others noted on it; nothing if there is none."""
        if self._errors:
            first, *others = self._errors
            for other in others:
                first.also(other.message)
            raise first


class Undo:
    """A stack of what was done, each entry with the way back."""

    def __init__(self, translate: Callable[[Exception], CNIError] = as_internal) -> None:
        self._entries: list[tuple[str, Callable[[], None]]] = []
        self._translate = translate

    def push(self, what: str, action: Callable[[], None]) -> None:
        """Remember how to take something back."""
        self._entries.append((what, action))

    def run(self) -> Failures:
        """Take everything back."""
        failures = Failures(self._translate)
        while self._entries:
            what, action = self._entries.pop()
            failures.run(f"undo: {what}", action)
        return failures
