"""A control plane of processes: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

All of them real, as tests/cluster/build-kubernetes makes them; TLS, tokens and RBAC as in a cluster.
"""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster.api import Api, Refused
from tests.containers.process import Process

JSON = dict[str, Any]
PORT = 6443
SERVICES = ("10.96.0.0/16", "fd00:10:96::/112")
SERVICE_ADDRESS = "10.96.0.1"
"""The API server's own among them: the first one."""

PODS = ("10.244.0.0/16", "fd00:10:244::/48")
STARTING = 240
"""Seconds that a program may take: processes start slowly in the lab."""

ADMINISTRATOR = "administrator"
"""Whose tokens these are; a token is its user's name with "-token" behind."""

SPARING = {"GOGC": "400"}
"""Go's collector is dear in the lab, where there is memory enough: it all starts a seventh sooner so."""

CONTROLLERS = (
    *("node-ipam-controller", "node-lifecycle-controller", "pod-garbage-collector-controller"),
    *("deployment-controller", "replicaset-controller", "daemonset-controller"),
    *("garbage-collector-controller", "namespace-controller", "serviceaccount-controller"),
    *("root-ca-certificate-publisher-controller", "taint-eviction-controller"),
    *("endpointslice-controller", "resourceclaim-controller"),
)


class ControlPlane:
    """What there is one of in a cluster, on `address` of the namespace that this runs in."""

    def __init__(self, folder: Path, programs: Path, address: str, nodes: tuple[str, ...]) -> None:
        """`nodes`: names of those that may join, by `kubeconfig(name)`."""
        self.folder = folder
        self.address = address
        self._programs = programs
        for name in ("etcd", "certificates", "logs", "kubeconfig"):
            (folder / name).mkdir(parents=True)
        self._certificate()
        self._tokens(nodes)
        self.kubeconfig_of = {name: self._kubeconfig(name) for name in (ADMINISTRATOR, *nodes)}
        self.api = Api(address, PORT, str(self.authority), f"{ADMINISTRATOR}-token")
        self.etcd = self._process("etcd", *self._etcd())
        self.api_server = self._process("kube-apiserver", *self._api_server())
        self.others = [
            self._process("kube-controller-manager", *self._controller_manager()),
            self._process("kube-scheduler", *self._scheduler()),
        ]

    @property
    def authority(self) -> Path:
        """The certificate that everybody trusts."""
        return self.folder / "certificates" / "ca.crt"

    def start(self, *, all_of_it: bool = True) -> None:
        """Start it, and wait for the API server; without the rest nothing acts on what is there."""
        self.etcd.start()
        self.start_api_server()
        for each in self.others if all_of_it else ():
            each.start()

    def start_api_server(self) -> None:
        """Start the API server, and wait until it is ready."""
        self.api_server.start()
        self.api_server.wait_for(self._is_ready, "/readyz", STARTING)

    def stop(self) -> None:
        """End all of it."""
        for each in (*self.others, self.api_server, self.etcd):
            each.end(signal.SIGKILL)

    def logs(self) -> dict[str, str]:
        """The end of each log, by program."""
        each = (self.etcd, self.api_server, *self.others)
        return {process.log.stem: process.end_of_log() for process in each}

    def kubectl(self, *arguments: str) -> str:
        """What kubectl says, as an administrator. Raises with what it complains about."""
        done = subprocess.run(
            ["kubectl", "--kubeconfig", self.kubeconfig_of[ADMINISTRATOR], *arguments],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def _is_ready(self) -> bool:
        try:
            return bool(self.api.get("/readyz") == "ok")
        except Refused:
            return False

    def _process(self, name: str, *arguments: str) -> Process:
        command: list[str | Path] = [self._programs / name, *arguments]
        return Process(self.folder / "logs" / f"{name}.log", command, env=SPARING)

    def _certificate(self) -> None:
        """One that is its own authority, for all names of the API server; and keys for tokens."""
        names = [self.address, SERVICE_ADDRESS, "127.0.0.1"]
        described = ",".join([*(f"IP:{each}" for each in names), "DNS:kubernetes.default.svc"])
        folder = self.authority.parent
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        _run(
            *("openssl", "req", "-x509", *curve, "-days", "30", "-subj", "/CN=cluster"),
            *("-addext", f"subjectAltName={described}", "-keyout", f"{folder}/ca.key"),
            *("-out", f"{self.authority}"),
        )
        _run("openssl", "genpkey", "-algorithm", "RSA", "-out", f"{folder}/tokens.key")

    def _tokens(self, nodes: tuple[str, ...]) -> None:
        """Who may come: --token-auth-file, "token,user,uid,groups"."""
        users = [(ADMINISTRATOR, "system:masters"), ("system:kube-scheduler", "")]
        users += [(f"system:node:{name}", "system:nodes") for name in nodes]
        lines = [f'{name}-token,{name},{name},"{group}"' for name, group in users]
        (self.folder / "tokens").write_text("\n".join(lines) + "\n")

    def _kubeconfig(self, name: str) -> Path:
        """For the administrator, or for a node."""
        known = name in (ADMINISTRATOR, "system:kube-scheduler")
        user = name if known else f"system:node:{name}"
        path = self.folder / "kubeconfig" / user.rpartition(":")[2]
        server = f"https://{self.address}:{PORT}"
        cluster = {"server": server, "certificate-authority": str(self.authority)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "me", "user": {"token": f"{user}-token"}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "me"}}],
            "current-context": "lab",
        }
        path.write_text(json.dumps(config))
        return path

    def _etcd(self) -> list[str]:
        url = "http://127.0.0.1:2379"
        peers = "http://127.0.0.1:2380"
        return [
            *(f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync", "--log-level=warn"),
            *(f"--listen-client-urls={url}", f"--advertise-client-urls={url}"),
            *(f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"),
            f"--initial-cluster=default={peers}",
        ]

    def _api_server(self) -> list[str]:
        keys = self.authority.parent
        return [
            "--etcd-servers=http://127.0.0.1:2379",
            *(f"--bind-address={self.address}", f"--advertise-address={self.address}"),
            *(f"--tls-cert-file={self.authority}", f"--tls-private-key-file={keys}/ca.key"),
            *(f"--token-auth-file={self.folder}/tokens", "--authorization-mode=Node,RBAC"),
            *("--enable-admission-plugins=NodeRestriction", "--allow-privileged=true"),
            f"--service-cluster-ip-range={','.join(SERVICES)}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys}/tokens.key",
            f"--service-account-signing-key-file={keys}/tokens.key",
            *("--kubelet-preferred-address-types=InternalIP", "--profiling=false"),
        ]

    def _controller_manager(self) -> list[str]:
        return [
            *(f"--kubeconfig={self.kubeconfig_of[ADMINISTRATOR]}", "--leader-elect=false"),
            *("--allocate-node-cidrs=true", f"--cluster-cidr={','.join(PODS)}"),
            *("--node-cidr-mask-size-ipv4=24", "--node-cidr-mask-size-ipv6=64"),
            f"--service-cluster-ip-range={','.join(SERVICES)}",
            f"--root-ca-file={self.authority}",
            f"--controllers={','.join(CONTROLLERS)}",
            "--secure-port=0",
        ]

    def _scheduler(self) -> list[str]:
        mine = self._kubeconfig("system:kube-scheduler")
        return [
            *(f"--kubeconfig={mine}", "--leader-elect=false", "--secure-port=0"),
            *(f"--authentication-kubeconfig={mine}", f"--authorization-kubeconfig={mine}"),
        ]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
