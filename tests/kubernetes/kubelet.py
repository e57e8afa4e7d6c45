"""What a kubelet makes of a pod specification: a ContainerConfig of the Container Runtime Interface.

Only the fields that our manifest uses; any other one is refused here rather than left out. It follows
pkg/kubelet/kuberuntime (security_context.go, kuberuntime_container_linux.go) and, for what procMount
"Default" hides, pkg/securitycontext/util.go of Kubernetes.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.containers.cri import namespaces

JSON = dict[str, Any]

MASKED = [
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi"),
    *("/sys/firmware", "/sys/devices/virtual/powercap"),
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}

IN_POD = {
    *("hostNetwork", "initContainers", "containers", "volumes", "securityContext"),
    # Of the API server, the scheduler and the kubelet's own loops.
    *("priorityClassName", "automountServiceAccountToken", "enableServiceLinks", "tolerations"),
    *("nodeSelector", "terminationGracePeriodSeconds", "serviceAccountName"),
}
IN_CONTAINER = {
    *("name", "image", "imagePullPolicy", "command", "args", "securityContext", "resources"),
    *("volumeMounts", "startupProbe", "readinessProbe", "livenessProbe"),
}
IN_SECURITY = {
    *("runAsUser", "runAsGroup", "seccompProfile", "seLinuxOptions", "appArmorProfile"),
    *("allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"),
}
PROPAGATION = {
    "None": "PROPAGATION_PRIVATE",
    "HostToContainer": "PROPAGATION_HOST_TO_CONTAINER",
    "Bidirectional": "PROPAGATION_BIDIRECTIONAL",
}


def container(pod: JSON, spec: JSON, volumes: Mapping[str, Path]) -> JSON:
    """One container of a pod; `volumes`: where the volumes are that are no hostPath."""
    _refuse_unknown(pod, IN_POD)
    _refuse_unknown(spec, IN_CONTAINER)
    sources = {each["name"]: each for each in pod["volumes"]}
    return {
        "metadata": {"name": spec["name"]},
        "image": {"image": spec["image"]},
        "command": spec.get("command", []),
        "args": spec.get("args", []),
        "log_path": f"{spec['name']}.log",
        "linux": {
            "security_context": _security(pod, spec),
            "resources": {
                "memory_limit_in_bytes": _bytes(spec["resources"]["limits"]["memory"]),
            },
        },
        "mounts": [
            _mount(mount, sources[mount["name"]], volumes) for mount in spec["volumeMounts"]
        ],
    }


def _security(pod: JSON, spec: JSON) -> JSON:
    """A container's own fields go before those of its pod."""
    wanted = {**pod.get("securityContext", {}), **spec.get("securityContext", {})}
    _refuse_unknown(wanted, IN_SECURITY)
    capabilities = wanted.get("capabilities", {})
    context: JSON = {
        "namespace_options": namespaces(host_network=pod.get("hostNetwork", False)),
        "capabilities": {
            "add_capabilities": capabilities.get("add", []),
            "drop_capabilities": capabilities.get("drop", []),
        },
        "readonly_rootfs": wanted.get("readOnlyRootFilesystem", False),
        "no_new_privs": not wanted.get("allowPrivilegeEscalation", True),
        "seccomp": _profile(wanted.get("seccompProfile", {"type": "Unconfined"})),
        "masked_paths": MASKED,
        "readonly_paths": READ_ONLY,
    }
    if "appArmorProfile" in wanted:
        context["apparmor"] = _profile(wanted["appArmorProfile"])
    if "seLinuxOptions" in wanted:
        context["selinux_options"] = wanted["seLinuxOptions"]
    for theirs, ours in (("runAsUser", "run_as_user"), ("runAsGroup", "run_as_group")):
        if theirs in wanted:
            context[ours] = {"value": wanted[theirs]}
    return context


def _profile(wanted: JSON) -> JSON:
    """RuntimeDefault or Unconfined, which the interface calls the same."""
    return {"profile_type": wanted["type"]}


def _mount(mount: JSON, volume: JSON, volumes: Mapping[str, Path]) -> JSON:
    if "hostPath" in volume:
        source = volume["hostPath"]["path"]
        assert volume["hostPath"]["type"] == "DirectoryOrCreate"
        os.makedirs(source, exist_ok=True)
    else:
        source = str(volumes[volume["name"]])
    return {
        "host_path": source,
        "container_path": mount["mountPath"],
        "readonly": mount.get("readOnly", False),
        "propagation": PROPAGATION[mount.get("mountPropagation", "None")],
    }


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\D*)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def _refuse_unknown(given: JSON, known: set[str]) -> None:
    assert not set(given) - known, f"what becomes of {sorted(set(given) - known)} is not known here"
