"""What a kubelet tells of its pods' claims, asked on its node: `python -m tests.cluster.pod_resources POD`.

By k8s.io/kubelet/pkg/apis/podresources/v1, as monitoring and schedulers of others read it.
"""

import json
import sys
from pathlib import Path

import grpc

from tests.containers.described import Service

SOCKET = "/var/lib/kubelet/pod-resources/kubelet.sock"


def main(pod: str) -> None:
    """Print a list of what is allocated to the pod's first container, as JSON."""
    description = Path(__file__).with_suffix(".proto")
    service = Service(description.parent, description.name, "v1.PodResourcesLister")
    with grpc.insecure_channel(f"unix://{SOCKET}") as channel:
        answer = service.call(channel, "List", 30)
    (found,) = (each for each in answer["pod_resources"] if each["name"] == pod)
    resources = found["containers"][0].get("dynamic_resources", ())
    print(json.dumps([each for claim in resources for each in claim["claim_resources"]]))


if __name__ == "__main__":
    main(sys.argv[1])
