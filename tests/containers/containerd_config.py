"""containerd's configuration: version 2 of the file for 1.x, version 3 for 2.x."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.containers import images
from tests.containers.fetched import fetched

CRI = "io.containerd.grpc.v1.cri"
SNAPSHOTTERS = ("aufs", "blockfile", "btrfs", "devmapper", "erofs", "zfs")
"""They would look for what is not here."""

JSON = dict[str, Any]
Tables = dict[str, JSON]


@dataclass(frozen=True)
class Settings:
    """What differs between the nodes of tests.

    `state` is what a boot empties, with the socket in it; `handlers` are runtime handlers with a folder of
    networks each; `metrics` is an address for its figures.
    """

    root: Path
    state: Path
    plugins: Path = Path("/opt/cni/bin")
    networks: Path = Path("/etc/cni/net.d")
    snapshotter: str = "native"
    sandbox: str = images.BUSYBOX
    handlers: Mapping[str, Path] = field(default_factory=dict)
    metrics: str = ""

    @property
    def socket(self) -> Path:
        """Where it answers."""
        return self.state / "containerd.sock"


def configuration_of(settings: Settings, series: str) -> str:
    """The whole file, for a series such as 1.7 or 2."""
    second = not series.startswith("1.")
    tables: Tables = {
        "": {
            "version": 3 if second else 2,
            "root": str(settings.root),
            "state": str(settings.state),
            # The last one would make /opt/containerd.
            "disabled_plugins": [
                *(f"io.containerd.snapshotter.v1.{name}" for name in SNAPSHOTTERS),
                "io.containerd.internal.v1.opt",
            ],
        },
        "grpc": {"address": str(settings.socket)},
        "metrics": {"address": settings.metrics} if settings.metrics else {},
        _plugin(CRI): {
            "disable_tcp_service": True,
            "stream_server_address": "127.0.0.1",
            "stream_server_port": "0",
        },
    }
    (_second if second else _first)(tables, settings)
    return _toml({name: values for name, values in tables.items() if values})


def _first(tables: Tables, settings: Settings) -> None:
    tables[_plugin(CRI)]["sandbox_image"] = settings.sandbox
    _runtime(tables, CRI, settings)
    tables[_plugin(CRI, "containerd")]["snapshotter"] = settings.snapshotter
    tables[_plugin(CRI, "cni")] = {
        "bin_dir": str(settings.plugins),
        "conf_dir": str(settings.networks),
    }


def _second(tables: Tables, settings: Settings) -> None:
    pulled, runtime = "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"
    tables[_plugin(pulled)] = {"snapshotter": settings.snapshotter}
    tables[_plugin(pulled, "pinned_images")] = {"sandbox": settings.sandbox}
    tables[_plugin("io.containerd.nri.v1.nri")] = {"disable": True}
    _runtime(tables, runtime, settings)
    tables[_plugin(runtime)]["enable_cdi"] = False
    for name in ("runc", *settings.handlers):
        handler = tables[_plugin(runtime, f"containerd.runtimes.{name}")]
        handler["snapshotter"] = settings.snapshotter
    tables[_plugin(runtime, "cni")] = {
        "bin_dirs": [str(settings.plugins)],
        "conf_dir": str(settings.networks),
    }


def _runtime(tables: Tables, plugin: str, settings: Settings) -> None:
    # Root may lack CAP_SYS_RESOURCE, which a lower oom_score_adj needs.
    tables.setdefault(_plugin(plugin), {}).update(
        disable_apparmor=True, restrict_oom_score_adj=True
    )
    tables[_plugin(plugin, "containerd")] = {"default_runtime_name": "runc"}
    networks: dict[str, JSON] = {
        name: {"cni_conf_dir": str(folder)} for name, folder in settings.handlers.items()
    }
    for name, more in {"runc": {}, **networks}.items():
        handler = f"containerd.runtimes.{name}"
        tables[_plugin(plugin, handler)] = {"runtime_type": "io.containerd.runc.v2", **more}
        runc = str(fetched("runc") / "runc")
        tables[_plugin(plugin, f"{handler}.options")] = {"BinaryName": runc}


def _plugin(name: str, table: str = "") -> str:
    return f'plugins."{name}"' + (f".{table}" if table else "")


def _toml(tables: Tables) -> str:
    """Tables of plain values; what JSON writes for those, TOML reads."""
    lines = []
    for name, values in tables.items():
        lines += [f"[{name}]"] if name else []
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
