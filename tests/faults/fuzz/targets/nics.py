"""nics.json, and a file in the place of a NIC's record."""

import json
from pathlib import Path

from cni_netkit.agent import nics
from cni_netkit.nics.record import NicStore
from tests.faults.fuzz import mutation, oracle

mutate = mutation.mutate

FILE = Path("/run/nics.json")
STORE = Path("/run/records")


def one(data: bytes) -> None:
    """Error 6 or 7, or NICs that are written as they were read; a record, none, or error 11."""
    FILE.write_bytes(data)
    with oracle.silent():
        with oracle.refusing(6, 7):
            for each in nics.read(FILE):
                again = json.dumps({"nics": [each.as_dict()]})
                FILE.write_text(again)
                assert nics.read(FILE) == (each,), again
                assert each.command.startswith("cni-netkit nic prepare ")
        with oracle.refusing(11):
            _record(data)


def _record(data: bytes) -> None:
    STORE.mkdir(exist_ok=True)
    (STORE / "nic0.json").write_bytes(data)
    store = NicStore(STORE)
    record = store.load("nic0")
    if record is not None and "/" not in record.preparation.device:
        store.save(record)
        assert store.load(record.preparation.device) == record
        store.remove(record.preparation.device)
