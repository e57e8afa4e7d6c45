"""containerd, asked through its CRI, with every file it has in one folder."""

from collections.abc import Mapping
from pathlib import Path

from tests.containers import images
from tests.containers.cgroups import remove_group
from tests.containers.containerd import Containerd
from tests.containers.containerd_config import Settings
from tests.containers.cri import GROUP, CRIError, sandbox
from tests.kernel import judge
from tests.runtimes.runtime import JSON, NOTHING, Asked, Place, Pod, Refused, Runtime, write_list

NO_FIELD = "the CRI has no field for it"


class ContainerdPods(Runtime):
    """One containerd. `handlers` are further runtime handlers with networks of their own."""

    lacks = {"mac": NO_FIELD, "ips": NO_FIELD}

    def __init__(
        self, place: Place, series: str, handlers: Mapping[str, Path] | None = None
    ) -> None:
        super().__init__(place)
        self.newest = "1.1.0" if series == "2" else "1.0.0"
        self._handlers = handlers or {}
        settings = Settings(
            root=place.folder / "root",
            state=place.folder / "state",
            plugins=place.plugins,
            networks=place.networks,
            handlers=self._handlers,
        )
        self._image: Path | None = images.busybox(place.folder / "image.tar")
        self._containerd = Containerd(place.folder, series, settings, env=place.env)
        self._cri = self._containerd.cri

    def start(self) -> None:
        """Start it, and wait until it answers; at the first time give it the image."""
        given, self._image = self._image, None
        self._containerd.start(*filter(None, [given]))

    def kill(self) -> None:
        """SIGKILL; the shims keep the pods."""
        self._containerd.kill()

    def end(self) -> None:
        """SIGTERM, and hang up."""
        self._containerd.end()
        remove_group(GROUP)

    def configure(self, conflist: JSON) -> None:
        """And wait until it was read."""
        super().configure(conflist)
        name = f'"Name":"{conflist["name"]}"'
        judge.wait_for(
            lambda: (
                name
                in str(self._cri.call("Status", verbose=True).get("info", {}).get("cniconfig", ""))
            ),
            f"containerd has read network {conflist['name']}",
        )

    def configure_handler(self, handler: str, conflist: JSON) -> None:
        """Have a network in force for pods that ask for this handler, and wait until it was read."""
        write_list(self._handlers[handler], conflist)

        def is_read() -> bool:
            info = self._cri.call("Status", verbose=True).get("info", {})
            return str(info.get(f"lastCNILoadStatus.{handler}")) == "OK"

        judge.wait_for(is_read, f"containerd has read the network of {handler}")

    def run(self, name: str, asked: Asked = NOTHING) -> Pod:
        """RunPodSandbox, as a kubelet asks for it."""
        if asked.mac or asked.ips:
            raise Refused(NO_FIELD)
        config = sandbox(name, annotations=asked.annotations, ports=asked.ports)
        try:
            identifier = self._cri.run_pod(config, asked.handler)
        except CRIError as error:
            raise Refused(str(error)) from None
        answer = self._cri.status(identifier)
        netns = str(answer["info"]["info"]).partition("/netns/")[2].partition('"')[0]
        return Pod(name, identifier, netns, _addresses(answer["status"]))

    def describe(self, pod: Pod) -> tuple[bool, tuple[str, ...]]:
        """PodSandboxStatus."""
        status = self._cri.status(pod.identifier)["status"]
        # SANDBOX_READY is 0, which is left out.
        return "state" not in status, _addresses(status)

    def stop(self, pod: Pod) -> None:
        """StopPodSandbox."""
        self._cri.stop_pod(pod.identifier)

    def remove(self, pod: Pod) -> None:
        """StopPodSandbox and RemovePodSandbox."""
        self._cri.remove_pod(pod.identifier)

    def network_fault(self) -> str:
        """Status, condition NetworkReady."""
        condition = self._cri.condition("NetworkReady")
        return "" if condition.get("status") else str(condition.get("message"))


def _addresses(status: JSON) -> tuple[str, ...]:
    network = status.get("network", {})
    found = [network.get("ip"), *(each["ip"] for each in network.get("additional_ips", []))]
    return tuple(filter(None, found))
