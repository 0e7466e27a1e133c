"""`make vm-test`: pyproc in a virtual machine with a distribution's kernel, AppArmor and control groups of version 2.

```
here                                   guest (tools/vm_guest.py)
image.build: kernel, root
qemu ── boots ───────────────────────▶ systemd, one unit, the checks
console ◀── ttyS0, progress ────────── what each check saw
document ◀── ttyS1, once ───────────── one JSON document, then the guest powers off
table, exit code
```

Rules: nothing is installed here, what is missing is one line with the remedy. The machine is bounded in time, ends with this
program however this ends, and has neither a network nor a disk. /dev/kvm is used where a kernel really boots with it, which is
tried, as there are hosts that have the device and refuse what qemu asks of it; else the processor is emulated.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import vm_image
from environment import Missing

SECONDS = 1800  # an emulated processor needs about half of it where nothing else runs
SHOWN = 160  # columns of what a check saw
KVM = Path("/dev/kvm")
KVM_SECONDS = 20  # a kernel that runs at full speed has written its first lines long before
PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "apt-get": "apt", "dpkg-deb": "dpkg"}
CONSOLE, DOCUMENT = vm_image.FOLDER / "console.log", vm_image.FOLDER / "report.json"
KERNEL_OPTIONS = "console=ttyS0 panic=-1 systemd.firstboot=off systemd.unit=pyproc-vm.service systemd.show_status=1"
PR_SET_PDEATHSIG = 1


def machine(accelerator: str, only: str) -> list[str]:
    """The command line of the machine: two processors, 2 GiB, two serial ports, nothing else."""
    return ["qemu-system-x86_64", "-machine", "pc", "-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "2048", "-nodefaults",
            "-display", "none", "-no-reboot", "-kernel", str(vm_image.KERNEL), "-initrd", str(vm_image.ROOT), "-append",
            f"{KERNEL_OPTIONS} vm-test.only={only}" if only else KERNEL_OPTIONS,
            "-serial", f"file:{CONSOLE}", "-serial", f"file:{DOCUMENT}"]


def end_with_parent() -> None:
    """In the child: it is killed when this program ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def boot(accelerator: str, seconds: float, *, only: str = "", until_console: bool = False) -> bool:
    """Run the machine until it powers off, or until its console says something. False when the time is over or qemu fails."""
    CONSOLE.write_bytes(b"")
    DOCUMENT.write_bytes(b"")
    command, errors = machine(accelerator, only), subprocess.DEVNULL if until_console else None
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
                          preexec_fn=end_with_parent) as process:
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                if until_console and CONSOLE.stat().st_size:
                    return True
                try:
                    return process.wait(1.0) == 0
                except subprocess.TimeoutExpired:
                    continue
            return False
        finally:
            process.kill()


def accelerator() -> str:
    """What runs the processor."""
    if os.access(KVM, os.R_OK | os.W_OK):
        if boot("kvm", KVM_SECONDS, until_console=True):
            return "kvm"
        print(f"  {KVM} is there, and no kernel boots with it: the processor is emulated", flush=True)
    return "tcg,thread=multi"


def judge(report: dict[str, Any]) -> bool:
    """Print the table; whether everything passed."""
    checks = report["checks"]
    width = max(map(len, checks))
    for name, (passed, detail, seconds) in checks.items():
        shown = " ".join(detail.split())
        print(f"  {'passed' if passed else 'FAILED'}  {name:{width}}  {seconds:4} s  {shown[:SHOWN] if passed else shown}")
    count = sum(1 for passed, _, _ in checks.values() if passed)
    print(f"Linux {report['kernel']} {report['machine']}, systemd {report['systemd']}, Python {report['python']}: "
          f"{count} of {len(checks)} checks passed")
    return count == len(checks)


def main() -> int:
    """Build, boot, judge."""
    parser = argparse.ArgumentParser(description="run pyproc in a virtual machine with a Debian kernel")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"the machine's time, {SECONDS} unless told")
    parser.add_argument("--only", default="", metavar="WORD", help="the checks whose name holds it")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the machine is ended
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            print(f"pyproc: vm-test needs {program}: apt-get install --no-install-recommends {package}", file=sys.stderr)
            return 1
    try:
        vm_image.build()
    except Missing as missing:
        print(f"pyproc: {missing}", file=sys.stderr)
        return 1
    chosen = accelerator()
    print(f"  the machine, {chosen.partition(',')[0]}; its console is in {CONSOLE.relative_to(vm_image.TOP)}", flush=True)
    ended = boot(chosen, options.seconds, only=options.only)
    try:
        report = json.loads(DOCUMENT.read_text())
    except ValueError:
        told = "\n  ".join(CONSOLE.read_text(errors="replace").strip().splitlines()[-12:])
        print(f"pyproc: the machine {'wrote no document' if ended else f'did not end in {options.seconds:.0f} s'}; its console says\n"
              f"  {told}", file=sys.stderr)
        return 1
    return 0 if judge(report) else 1


if __name__ == "__main__":
    sys.exit(main())
