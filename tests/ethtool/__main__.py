"""Record what the real ethtool sends: renews captures/, one file a version.

    tests/lab/run env PYTHONPATH=$PWD .venv/bin/python -m tests.ethtool [ETHTOOL ...]

Without a program it is the system's, and the one of `tests/lab/fetch ethtool`. What goes by ioctl
(RSS, rules for flows) is sent to the fake NIC, what goes by netlink to a netdevsim on the kernel.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.ethtool.fake import FOLDER, FakeNic, compiled, ethtool

CAPTURES = FOLDER / "captures"
FETCH = FOLDER.parent / "lab" / "fetch"
NETDEVSIM = Path("/sys/bus/netdevsim")
NUMBER = 77

COMMANDS = (
    "-N {} flow-type tcp4 dst-ip 10.1.0.2 action 3",
    "-N {} flow-type udp4 dst-ip 10.1.0.2 dst-port 9000 action 4",
    "-N {} flow-type tcp6 dst-ip fd00:1::2 action 5",
    "-N {} flow-type udp6 dst-ip fd00:1::2 dst-port 53 action 6",
    "-X {} equal 6",
    "-X {} context new start 6 equal 2",
    "-N {} flow-type tcp4 dst-ip 10.1.0.3 dst-port 443 context 1",
    "-N {} flow-type tcp6 dst-ip fd00:1::3 context 1",
    "-N {} flow-type tcp4 dst-ip 10.1.0.4 action 2 loc 9",
    "-n {}",
    "-N {} delete 9",
    "-N {} delete 11",
    "-N {} delete 10",
    "-X {} context 1 delete",
    "-X {} default",
    "-g {}",
    "-G {} rx 1024",
    "-G {} tcp-data-split on",
    "-G {} hds-thresh 0",
    "-G {} rx 2048 tcp-data-split off hds-thresh 1",
    "-l {}",
    "-L {} combined 5",
    "-L {} rx 3",
    "-K {} ntuple on",
    "-K {} rx-gro off",
)


def record(program: str, device: str, library: Path, folder: Path) -> dict[str, object]:
    """What the program sends for each command that it knows."""
    nic = FakeNic(device)
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    captures = []
    with ethtool(program, nic, library, folder) as tool:
        for command in COMMANDS:
            nic.requests.clear()
            tool.netlink.clear()
            said_now = tool.run(*command.format(device).split(), only_ioctl=False)
            if not nic.requests and len(tool.netlink) < 2:  # but for the look-up of the family
                print(f"{program} {command}: {said_now}", file=sys.stderr)
                continue
            captures.append(
                {
                    "command": f"ethtool {command.format(device)}",
                    "ioctl": [request.hex() for request in nic.requests],
                    # Without struct nlmsghdr: numbers of the family, the request and the process.
                    "netlink": [message[16:].hex() for message in tool.netlink],
                }
            )
    (folder / f"{device}.sock").unlink()
    return {"version": said.stdout.split()[-1], "device": device, "captures": captures}


def main() -> None:
    """Write a file for each program."""
    programs = sys.argv[1:]
    if not programs:
        fetched = subprocess.run([FETCH, "ethtool"], stdout=subprocess.PIPE, text=True, check=True)
        programs = ["ethtool", f"{fetched.stdout.strip()}/ethtool"]
    (NETDEVSIM / "new_device").write_text(f"{NUMBER} 1 8")
    try:
        (device,) = (NETDEVSIM / f"devices/netdevsim{NUMBER}/net").iterdir()
        with tempfile.TemporaryDirectory() as scratch:
            library = compiled(Path(scratch))
            for program in programs:
                found = record(program, device.name, library, Path(scratch))
                text = json.dumps(found, indent=1)
                CAPTURES.mkdir(exist_ok=True)
                (CAPTURES / f"{found['version']}.json").write_text(text + "\n")
    finally:
        (NETDEVSIM / "del_device").write_text(str(NUMBER))


if __name__ == "__main__":
    main()
