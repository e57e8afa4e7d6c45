"""Records of attachments of older formats: how each becomes one of the next.

`tests/records` has records of every format, as the releases wrote them.
"""

from cni_netkit.formats import JSON


def describe_the_device_once(record: JSON) -> JSON:
    """From 1 to 2: what a device is like is one object of its step."""
    return {**record, "steps": [_with_spec(step) for step in record["steps"]]}


def _with_spec(step: JSON) -> JSON:
    if step["step"] != "device":
        return step
    spec = {key: value for key, value in step.items() if key not in ("step", "addressed")}
    host, container, mac = (spec.pop(key) for key in ("host_name", "container_name", "mac"))
    if spec["pairing"] == "pair":
        spec |= {"name": host, "peer_name": container, "mac": None, "peer_mac": mac}
    else:
        spec |= {"name": container, "peer_name": "", "mac": mac, "peer_mac": None}
    return {"step": "device", "spec": spec, "addressed": step["addressed"]}


def masquerade_without_exceptions(record: JSON) -> JSON:
    """From 2 to 3: whether a chain of masquerading looks up what is excepted; none did."""
    return {**record, "steps": [_without_exceptions(step) for step in record["steps"]]}


def _without_exceptions(step: JSON) -> JSON:
    return {**step, "excluded": None} if step["step"] == "masquerade" else step
