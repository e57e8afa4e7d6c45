"""What a kubelet makes of a pod specification: messages of the Container Runtime Interface.

Only the fields that our manifest uses; any other one is refused here rather than left out. It follows
pkg/kubelet/kuberuntime (security_context.go, kuberuntime_container_linux.go) and, for what procMount
"Default" hides, pkg/securitycontext/util.go of Kubernetes.
"""

import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import api_pb2 as api

JSON = dict[str, Any]

MASKED = [
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi"),
    *("/sys/firmware", "/sys/devices/virtual/powercap"),
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
CGROUP = "cni-netkit-tests"
"""In place of "kubepods"; it is the kubelet, not the runtime, that removes what is in it."""

UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}

IN_POD = {
    *("hostNetwork", "initContainers", "containers", "volumes", "securityContext"),
    # Of the API server, the scheduler and the kubelet's own loops.
    *("priorityClassName", "automountServiceAccountToken", "enableServiceLinks", "tolerations"),
    *("nodeSelector", "terminationGracePeriodSeconds"),
}
IN_CONTAINER = {
    *("name", "image", "imagePullPolicy", "command", "args", "securityContext", "resources"),
    *("volumeMounts", "startupProbe", "readinessProbe", "livenessProbe"),
}
IN_SECURITY = {
    *("runAsUser", "runAsGroup", "seccompProfile", "seLinuxOptions", "appArmorProfile"),
    *("allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"),
}
PROFILES = {
    "RuntimeDefault": api.SecurityProfile.RuntimeDefault,
    "Unconfined": api.SecurityProfile.Unconfined,
}
PROPAGATION = {
    "None": api.PROPAGATION_PRIVATE,
    "HostToContainer": api.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": api.PROPAGATION_BIDIRECTIONAL,
}


def sandbox(
    name: str, *, host_network: bool = False, ports: Mapping[int, int] | None = None
) -> Any:
    """A pod's sandbox; `ports`: the node's port to the container's."""
    unique = str(uuid.uuid4())
    config = api.PodSandboxConfig(
        metadata=api.PodSandboxMetadata(name=name, namespace="kube-system", uid=unique),
        linux=api.LinuxPodSandboxConfig(
            cgroup_parent=f"/{CGROUP}/pod{unique}",
            security_context=api.LinuxSandboxSecurityContext(
                namespace_options=_namespaces(host_network)
            ),
        ),
    )
    for outside, inside in (ports or {}).items():
        config.port_mappings.add(protocol=api.TCP, host_port=outside, container_port=inside)
    return config


def container(pod: JSON, spec: JSON, volumes: Mapping[str, Path]) -> Any:
    """One container of a pod; `volumes`: where the volumes are that are no hostPath."""
    _refuse_unknown(pod, IN_POD)
    _refuse_unknown(spec, IN_CONTAINER)
    config = api.ContainerConfig(
        metadata=api.ContainerMetadata(name=spec["name"]),
        image=api.ImageSpec(image=spec["image"]),
        command=spec.get("command", []),
        args=spec.get("args", []),
        log_path=f"{spec['name']}.log",
        linux=api.LinuxContainerConfig(
            security_context=_security(pod, spec),
            resources=api.LinuxContainerResources(
                memory_limit_in_bytes=_bytes(spec["resources"]["limits"]["memory"])
            ),
        ),
    )
    sources = {each["name"]: each for each in pod["volumes"]}
    for mount in spec["volumeMounts"]:
        config.mounts.append(_mount(mount, sources[mount["name"]], volumes))
    return config


def _security(pod: JSON, spec: JSON) -> Any:
    """A container's own fields go before those of its pod."""
    wanted = {**pod.get("securityContext", {}), **spec.get("securityContext", {})}
    _refuse_unknown(wanted, IN_SECURITY)
    capabilities = wanted.get("capabilities", {})
    context = api.LinuxContainerSecurityContext(
        namespace_options=_namespaces(pod.get("hostNetwork", False)),
        capabilities=api.Capability(
            add_capabilities=capabilities.get("add", []),
            drop_capabilities=capabilities.get("drop", []),
        ),
        readonly_rootfs=wanted.get("readOnlyRootFilesystem", False),
        no_new_privs=not wanted.get("allowPrivilegeEscalation", True),
        seccomp=_profile(wanted.get("seccompProfile", {"type": "Unconfined"})),
        masked_paths=MASKED,
        readonly_paths=READ_ONLY,
    )
    if "appArmorProfile" in wanted:
        context.apparmor.CopyFrom(_profile(wanted["appArmorProfile"]))
    if "runAsUser" in wanted:
        context.run_as_user.value = wanted["runAsUser"]
    if "runAsGroup" in wanted:
        context.run_as_group.value = wanted["runAsGroup"]
    if "seLinuxOptions" in wanted:
        context.selinux_options.CopyFrom(api.SELinuxOption(**wanted["seLinuxOptions"]))
    return context


def _namespaces(host_network: bool) -> Any:
    network = api.NODE if host_network else api.POD
    return api.NamespaceOption(network=network, pid=api.CONTAINER, ipc=api.POD)


def _profile(wanted: JSON) -> Any:
    return api.SecurityProfile(profile_type=PROFILES[wanted["type"]])


def _mount(mount: JSON, volume: JSON, volumes: Mapping[str, Path]) -> Any:
    if "hostPath" in volume:
        source = volume["hostPath"]["path"]
        assert volume["hostPath"]["type"] == "DirectoryOrCreate"
        os.makedirs(source, exist_ok=True)
    else:
        source = str(volumes[volume["name"]])
    return api.Mount(
        host_path=source,
        container_path=mount["mountPath"],
        readonly=mount.get("readOnly", False),
        propagation=PROPAGATION[mount.get("mountPropagation", "None")],
    )


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\D*)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def _refuse_unknown(given: JSON, known: set[str]) -> None:
    assert not set(given) - known, f"what becomes of {sorted(set(given) - known)} is not known here"
