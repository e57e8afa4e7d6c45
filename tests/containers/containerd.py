"""containerd with its CRI plugin: on this node, or on one of namespaces."""

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.containers.containerd_config import Settings, configuration_of
from tests.containers.cri import CRI, CRIError
from tests.containers.fetched import fetched
from tests.containers.process import Process
from tests.kernel import judge

SECONDS = 120.0
"""Until it answers: the lab is slow."""


class Containerd:
    """One of a series such as 1.7 or 2; its configuration and its log are in `folder`.

    `prefix` is a command that takes another one to where it shall run, and `seen` how the root of the file
    system is named from here then.
    """

    def __init__(
        self,
        folder: Path,
        series: str,
        settings: Settings,
        *,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        seen: str = "",
    ) -> None:
        self.programs = fetched(f"containerd-{series}")
        self.settings = settings
        self._series = series
        self._prefix = prefix
        configuration = folder / "config.toml"
        configuration.write_text(configuration_of(settings, series))
        # It looks for its shim there.
        path = {"PATH": f"{self.programs}:{os.environ['PATH']}"}
        self.process = Process(
            folder / "containerd.log",
            [self.programs / "containerd", "--config", configuration],
            prefix=prefix,
            env={**(env or {}), **path},
        )
        logs = folder / "pods"
        logs.mkdir(exist_ok=True)
        self.cri = CRI(Path(f"{seen}{settings.socket}"), logs)

    def start(self, *images: Path) -> None:
        """Start it, wait until it answers, and have images there."""
        self.process.start()
        self.process.wait_for(self._answers, "it answers", SECONDS)
        for image in images:
            self.load(image)

    def load(self, image: Path) -> None:
        """Have an image there."""
        snapshotter = f"--snapshotter={self.settings.snapshotter}"
        # The transfer service of 2.x would unpack for overlayfs only; 1.x knows no other way than this.
        local = [] if self._series.startswith("1.") else ["--local"]
        self.ctr("images", "import", *local, snapshotter, str(image))

    def ctr(self, *arguments: str) -> str:
        """What ctr says, in the namespace of Kubernetes."""
        address = [f"--address={self.settings.socket}", "--namespace=k8s.io"]
        return judge.run(*self._prefix, str(self.programs / "ctr"), *address, *arguments)

    def kill(self) -> None:
        """SIGKILL; the shims keep the pods."""
        self.process.end(signal.SIGKILL)

    def end(self) -> None:
        """SIGTERM, and hang up."""
        self.process.end()
        self.cri.close()

    def _answers(self) -> bool:
        try:
            return bool(self.cri.condition("RuntimeReady").get("status"))
        except CRIError:
            return False
