"""A file in the place of a record: read, told of, checked, and taken back by DEL and by GC.

What a record says is believed, since only root can write it; but what is none must not be in the
way for ever, nor be taken for one.
"""

import json
import os
from pathlib import Path

from cni_netkit.formats import Newer
from cni_netkit.record import Record
from cni_netkit.release import sweep
from cni_netkit.state import ROOT, NewerRecord, Store
from tests.faults.fuzz import cell, mutation, oracle
from tests.faults.fuzz.targets import request

mutate = mutation.mutate
prepare = request.prepare

PLACE = ROOT / "net" / "c1:eth0.json"
CONFIG = json.dumps({"cniVersion": "1.1.0", "name": "net", "type": "netkit"}).encode()


def one(data: bytes) -> None:
    """DEL and GC work and leave nothing; only what a newer release wrote stays, with error 11."""
    _load(data)
    with oracle.silent():
        for verb in ("CHECK", "GC", "DEL"):
            _put(data)
            assert [each.attachment for each in Store().scan()], "not even told of"
            newer = isinstance(next(Store().scan()), NewerRecord)
            sweep()
            if verb != "CHECK":
                _released(verb, newer)
            else:
                answer = request.ask(
                    {**request.ENVIRONMENT, "CNI_COMMAND": verb},
                    CONFIG[:-1] + b', "prevResult": {}}',
                )
                assert answer.status == 1, answer
    PLACE.unlink(missing_ok=True)
    after = cell.world(request.CELL.inside)
    assert after == request.CELL.before, request.difference(request.CELL.before, after)


def _load(data: bytes) -> None:
    try:
        record = Record.load(data)
    except (ValueError, Newer):
        return
    assert Record.load(record.dump()).attachment == record.attachment
    assert record.abandoned in (True, False)


def _put(data: bytes) -> None:
    os.makedirs(PLACE.parent, exist_ok=True)
    PLACE.write_bytes(data)
    os.chmod(PLACE, 0o600)


def _released(verb: str, newer: bool) -> None:
    answer = request.ask({**request.ENVIRONMENT, "CNI_COMMAND": verb}, CONFIG)
    code = (answer.output or {}).get("code", 0)
    if newer:
        assert code == 11, answer
    elif code != 104 and not (code == 7 and "there is no plugin" in str(answer.output)):
        # What the kernel refuses, and a plugin that is not there: a record is believed so far.
        assert code == 0, answer
        assert not Path(PLACE).exists() or (verb == "DEL" and _was_added()), f"after {verb}"


def _was_added() -> bool:
    """Whether it is what an administrator added: a runtime's DEL leaves it alone."""
    return Record.load(PLACE.read_bytes()).added_to is not None
