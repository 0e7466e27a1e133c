"""An AppArmor profile of the program that makes the pool, with one below it for the trees of workers. Pure.

    profile pyproc            the supervisor, entered by name: AppArmorProfile=pyproc in the unit, aa-exec -p pyproc
      └─ profile worker       by exec of the interpreter: boot, zygote and workers, which leave it no more

Rules and reasons:
* No `deny network,`: it denies AF_UNIX too (measured by the guide's readers, `docs/explanation/critique-of-the-guide.md`). What no
  rule grants is denied; the families of networks are denied by name, so that an attempt is not even logged.
* The profile must let the boot build its walls, so it allows mounts and capabilities, which the kernel grants only within the user
  namespace that the boot makes. What it adds for good is the list of files, the programs, the families of sockets and ptrace.
* `capability kill`: workers of a supervisor that is root have another uid; it, and their keeper, end them.
* Under `NoNewPrivileges=yes` the kernel refuses the change to the workers' profile, and no pool starts: the unit that enters `pyproc`
  must leave that option out; each worker sets it for itself.
* Without `userns`, `mqueue` and `io_uring` rules: the compiler knows them from version 4 on, and 3 refuses the words.
* Paths are quoted; glob signs and `@` (variables) are escaped. Quotes, backslashes and control characters are refused: in a quoted
  word the compiler takes a backslash before the closing quote for an escaped quote.
"""

from __future__ import annotations

from pyproc.policy import head
from pyproc.policy.subject import Policy

GLOB = "*?[]{}^@"
FAMILIES = ("inet", "inet6", "netlink", "packet", "bluetooth", "vsock", "can", "alg", "xdp")
SETUP = """\
    # the boot: namespaces, the new root, giving away what it has; the kernel grants these inside its own user namespace only
    capability sys_admin,
    capability kill,
    capability setuid,
    capability setgid,
    capability setpcap,
    mount,
    umount,
    pivot_root,
    owner /proc/*/{uid_map,gid_map,setgroups} w,
    # the keeper removes a pool's empty control groups, whose mount it no longer sees
    /**/pyproc-*/{,**/} rw,
    /tmp/ r,
    /tmp/** w,
    /proc/*/** r,
    /scratch/ r,
"""


def render(policy: Policy) -> str:
    """The file. Raises ConfigError for paths that cannot be written."""
    python = quoted(policy.program)
    text = head.comment(policy, "AppArmor profile", head.NOT_ENFORCED + ": apparmor_parser -r loads it where the kernel has AppArmor")
    denied = "".join(f"  deny network {family},\n" for family in FAMILIES)
    reads = "".join(_read(path) for path in policy.readable)
    devices = "".join(f"    {quoted(path)} {'rw' if path == '/dev/null' else 'r'},\n" for path in policy.devices)
    scratch = f"    {quoted(policy.scratch_path)}/** rwk,\n" if policy.scratch else ""
    return text + f"""
profile pyproc flags=(attach_disconnected) {{
  # the supervisor: reads, its sockets and state, its trees
  network unix,
{denied}  / r,
  /** r,
  /** m,
  owner /run/pyproc/** rwk,
  owner /var/lib/pyproc/** rwk,
  owner /tmp/** rwk,
  owner /proc/*/{{uid_map,gid_map,setgroups}} w,
  /sys/fs/cgroup/** rw,
  # writing the map of a boot's user namespace, there for a user and of the host for root; ending workers of another uid
  capability sys_admin,
  capability setuid,
  capability setgid,
  capability setfcap,
  capability kill,
  # attesting: /proc/PID/environ of what runs in a user namespace of ours, under another uid if we are root
  capability sys_ptrace,
  capability dac_read_search,
  # a worker's own limit of tasks, set from outside
  capability sys_resource,
  /dev/null rw,
  signal (send, receive) peer=pyproc,
  signal (send) peer=pyproc//worker,
  # /proc of what was just started: until its exec is done it stands in this profile
  ptrace (read, readby) peer=pyproc,
  ptrace (read, trace) peer=pyproc//worker,
  {python} cx -> worker,

  profile worker flags=(attach_disconnected) {{
    network unix,
{denied.replace("  deny", "    deny")}    deny ptrace (read, trace),
    ptrace (readby, tracedby) peer=pyproc,
    signal (receive) peer=pyproc,
    signal (send, receive) peer=pyproc//worker,
{SETUP}    # the program that boots is the interpreter again; no other program can be started
    {python} mrix,
    # what workers read
{reads}{devices}{scratch}  }}
}}
"""


def quoted(path: str) -> str:
    """`path` as a quoted pattern that matches it and nothing else."""
    carried = head.carried("an AppArmor profile", "path", path, forbidden='"\\')
    return '"' + "".join(f"\\{c}" if c in GLOB else c for c in carried) + '"'


def _read(path: str) -> str:
    """The path and all below it: libraries are mapped with the right to execute."""
    inner = quoted(path)[1:-1]
    return f'    "{inner}" mr,\n    "{inner}/" r,\n    "{inner}/**" mr,\n'
