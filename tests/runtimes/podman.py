"""podman 4 with its CNI back end: no daemon, a conmon for each container."""

import json
import os
import signal
import subprocess
from functools import cached_property
from pathlib import Path

from tests.containers import images
from tests.containers.cgroups import remove_group
from tests.containers.fetched import fetched
from tests.kernel import judge
from tests.runtimes.runtime import JSON, NOTHING, Asked, Place, Pod, Refused, Runtime

NO_CAPABILITY = "podman 4 passes no annotations to CNI plugins"


class Podman(Runtime):
    """A container stands for a pod: podman's own pods are attached in the same way."""

    lacks = {
        "annotations": NO_CAPABILITY,
        "annotation_not_allowed": NO_CAPABILITY,
        "network_of_a_handler": "its OCI runtimes have no networks of their own",
        "network_status": "podman 4 sends no STATUS",
        "namespace_gone": "podman 4 sends no DEL for a namespace that it cannot open",
    }

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.programs = fetched("podman")

    def start(self) -> None:
        """Nothing runs but what is called; write what that reads."""
        folder = self.place.folder
        if not (folder / "containers.conf").exists():
            (folder / "containers.conf").write_text(self._configuration())
            (folder / "storage.conf").write_text(
                '[storage]\ndriver = "vfs"\n'
                f'graphroot = "{folder}/graph"\nrunroot = "{folder}/runroot"\n'
            )
            images.busybox_folder(folder / "root")

    def kill(self) -> None:
        """SIGKILL to every conmon: whoever watches the containers is gone."""
        for pid in self._monitors():
            os.kill(pid, signal.SIGKILL)
        judge.wait_for(lambda: not self._monitors(), "the monitors are gone")

    def end(self) -> None:
        """Nothing is left once the containers are removed."""

    def _monitors(self) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if command[0].endswith(b"/conmon") and str(self.place.folder).encode() in b" ".join(
                command
            ):
                found.append(int(folder.name))
        return found

    def run(self, name: str, asked: Asked = NOTHING) -> Pod:
        """`podman run`; addresses are asked for as it lets a user do it."""
        if asked.annotations:
            raise Refused(NO_CAPABILITY)
        options = [f"ip={each}" for each in asked.ips]
        options += [f"mac={asked.mac}"] if asked.mac else []
        network = self.network + (":" + ",".join(options) if options else "")
        published = [f"--publish={host}:{inside}" for host, inside in asked.ports.items()]
        try:
            identifier = self._podman(
                *("run", "--detach", "--name", name, "--network", network, *published),
                *("--rootfs", str(self.place.folder / "root"), *images.FOREVER),
            ).strip()
        except Refused:
            # It keeps the container that it could not start.
            self._podman("rm", "--force", name)
            raise
        settings = self._inspect(identifier)["NetworkSettings"]
        netns = Path(settings["SandboxKey"]).name
        return Pod(name, identifier, netns, self._addresses(settings))

    def _addresses(self, settings: JSON) -> tuple[str, ...]:
        (network,) = settings["Networks"].values()
        found = (network.get("IPAddress"), network.get("GlobalIPv6Address"))
        return tuple(filter(None, found))

    def describe(self, pod: Pod) -> tuple[bool, tuple[str, ...]]:
        """`podman inspect`."""
        found = self._inspect(pod.identifier)
        settings = found["NetworkSettings"]
        return bool(found["State"]["Running"]), self._addresses(settings)

    def stop(self, pod: Pod) -> None:
        """`podman stop`."""
        self._podman("stop", "--time", "0", pod.identifier)

    def remove(self, pod: Pod) -> None:
        """`podman rm --force`."""
        self._podman("rm", "--force", "--time", "0", pod.identifier)
        # It stays where conmon was killed.
        remove_group(f"/libpod_parent/libpod-{pod.identifier}")

    def _inspect(self, identifier: str) -> JSON:
        (found,) = json.loads(self._podman("container", "inspect", identifier))
        return found  # type: ignore[no-any-return]

    def _podman(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.programs / "bin" / "podman", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Refused(f"podman {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    @cached_property
    def _environment(self) -> dict[str, str]:
        libraries = ":".join(map(str, self.programs.glob("lib/*-linux-gnu")))
        return {
            **self.place.env,
            "LD_LIBRARY_PATH": libraries,
            "CONTAINERS_CONF": str(self.place.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.place.folder / "storage.conf"),
        }

    def _configuration(self) -> str:
        folder = self.place.folder
        return f"""[containers]
log_driver = "k8s-file"
seccomp_profile = "unconfined"
apparmor_profile = "unconfined"
default_sysctls = []
# What root without CAP_SYS_RESOURCE may have.
default_ulimits = ["nofile=1024:1024", "nproc=8192:8192"]

[network]
network_backend = "cni"
cni_plugin_dirs = ["{self.place.plugins}"]
network_config_dir = "{self.place.networks}"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
conmon_path = ["{self.programs}/bin/conmon"]
runtime = "runc"
static_dir = "{folder}/static"
tmp_dir = "{folder}/tmp"
volume_path = "{folder}/volumes"

[engine.runtimes]
runc = ["{fetched("runc")}/runc"]
"""
