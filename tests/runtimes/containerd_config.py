"""containerd's configuration: version 2 of the file for 1.x, version 3 for 2.x."""

import json
from collections.abc import Mapping
from pathlib import Path

from tests.containers import images
from tests.runtimes.runtime import JSON, Place, fetched

CRI = "io.containerd.grpc.v1.cri"
SNAPSHOTTERS = ("aufs", "blockfile", "btrfs", "devmapper", "erofs", "zfs")
"""They would look for what is not here; the image is unpacked by `native`."""

Tables = dict[str, JSON]


def configuration_of(
    place: Place, socket: str, handlers: Mapping[str, Path], *, second: bool
) -> str:
    """The whole file. `handlers` are runtime handlers with a folder of networks each."""
    tables: Tables = {
        "": {
            "version": 3 if second else 2,
            "root": f"{place.folder}/root",
            "state": f"{place.folder}/state",
            # The last one would make /opt/containerd.
            "disabled_plugins": [
                *(f"io.containerd.snapshotter.v1.{name}" for name in SNAPSHOTTERS),
                "io.containerd.internal.v1.opt",
            ],
        },
        "grpc": {"address": socket},
        _plugin(CRI): {
            "disable_tcp_service": True,
            "stream_server_address": "127.0.0.1",
            "stream_server_port": "0",
        },
    }
    (_second if second else _first)(tables, place, handlers)
    return _toml({name: values for name, values in tables.items() if values})


def _first(tables: Tables, place: Place, handlers: Mapping[str, Path]) -> None:
    tables[_plugin(CRI)]["sandbox_image"] = images.BUSYBOX
    _runtime(tables, CRI, handlers)
    tables[_plugin(CRI, "containerd")]["snapshotter"] = "native"
    tables[_plugin(CRI, "cni")] = {
        "bin_dir": str(place.plugins),
        "conf_dir": str(place.networks),
    }


def _second(tables: Tables, place: Place, handlers: Mapping[str, Path]) -> None:
    pulled, runtime = "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"
    tables[_plugin(pulled)] = {"snapshotter": "native"}
    tables[_plugin(pulled, "pinned_images")] = {"sandbox": images.BUSYBOX}
    tables[_plugin("io.containerd.nri.v1.nri")] = {"disable": True}
    _runtime(tables, runtime, handlers)
    tables[_plugin(runtime)]["enable_cdi"] = False
    for name in ("runc", *handlers):
        tables[_plugin(runtime, f"containerd.runtimes.{name}")]["snapshotter"] = "native"
    tables[_plugin(runtime, "cni")] = {
        "bin_dirs": [str(place.plugins)],
        "conf_dir": str(place.networks),
    }


def _runtime(tables: Tables, plugin: str, handlers: Mapping[str, Path]) -> None:
    # Root may lack CAP_SYS_RESOURCE, which a lower oom_score_adj needs.
    tables.setdefault(_plugin(plugin), {}).update(
        disable_apparmor=True, restrict_oom_score_adj=True
    )
    tables[_plugin(plugin, "containerd")] = {"default_runtime_name": "runc"}
    networks: dict[str, JSON] = {
        name: {"cni_conf_dir": str(folder)} for name, folder in handlers.items()
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
