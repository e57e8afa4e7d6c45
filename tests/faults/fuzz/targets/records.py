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
    oracle.sound(json.loads(record.dump()))
    assert record.abandoned in (True, False)


def _put(data: bytes) -> None:
    os.makedirs(PLACE.parent, exist_ok=True)
    PLACE.write_bytes(data)
    os.chmod(PLACE, 0o600)


def _released(verb: str, newer: bool) -> None:
    answer = request.ask({**request.ENVIRONMENT, "CNI_COMMAND": verb}, CONFIG)
    if newer:
        assert answer.status == 1, answer
        assert answer.output is not None
        assert answer.output["code"] == 11, answer
    else:
        assert answer.status == 0, answer
    assert Path(PLACE).exists() == newer, f"after {verb}"
