"""An SELinux module in CIL: types for the service and its workers, and contexts for what the policy names. Pure.

Rules and reasons:
* It stands on the reference policy, by its types for system files (`lib_t`, `usr_t`, …) and its user and role; where one of these is
  missing, the optional block with the rule is left out by the compiler, and the worker reads less.
* Workers have no rule for a socket that is not AF_UNIX, for ptrace, for files that are not listed. As with AppArmor, the boot's
  mounts and capabilities are allowed, which the kernel grants only inside its own user namespace.
* A `filecon` takes a PCRE in a quoted string, and the file of contexts that is made of it is split at white space: a path is escaped
  character by character, a space as \\x20. A quote and control characters are refused, as CIL has no escape for them.
"""

from __future__ import annotations

from pyproc.policy import head
from pyproc.policy.subject import Policy

PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_-")
SYSTEM_TYPES = ("lib_t", "usr_t", "bin_t", "ld_so_t", "ld_so_cache_t", "locale_t", "textrel_shlib_t")
RULES = """\
(block pyproc
    (type service_t)
    (type worker_t)
    (type exec_t)
    (type readable_t)
    (type state_t)
    (type memory_t)
    (roletype system_r service_t)
    (roletype system_r worker_t)
    (roletype object_r exec_t)
    (roletype object_r readable_t)
    (roletype object_r state_t)
    (roletype object_r memory_t)
    (typeattribute confined)
    (typeattributeset confined (service_t worker_t))
    ; the trees of workers: by exec of the interpreter that is labelled exec_t
    (typetransition service_t exec_t process worker_t)
    (allow service_t worker_t (process (transition sigkill signal signull getattr ptrace)))
    (allow service_t worker_t (fd (use)))
    (allow worker_t service_t (fd (use)))
    (allow worker_t service_t (fifo_file (getattr read write)))
    (allow worker_t service_t (unix_stream_socket (getattr read write)))
    (allow worker_t exec_t (file (entrypoint execute execute_no_trans map getattr open read)))
    (allow service_t exec_t (file (execute map getattr open read)))
    (allow worker_t self (process (fork sigchld setrlimit setcap)))
    (allow worker_t self (capability (sys_admin setuid setgid setpcap)))
    (allow worker_t self (fifo_file (getattr read write)))
    (allow worker_t self (unix_stream_socket (create getattr read write getopt setopt shutdown)))
    (allow worker_t readable_t (file (getattr open read execute map)))
    (allow worker_t readable_t (dir (getattr open read search)))
    (allow worker_t readable_t (lnk_file (getattr read)))
    (allow service_t readable_t (file (getattr open read execute map)))
    (allow service_t readable_t (dir (getattr open read search)))
    ; the arenas of large values: memfds of the service, which its workers map
    (allow confined memory_t (file (getattr read write map)))
    (optional arenas
        (typetransition service_t tmpfs_t file memory_t))
    (allow service_t state_t (dir (getattr open read search write add_name remove_name create rmdir)))
    (allow service_t state_t (file (getattr open read write append create unlink rename setattr lock)))
    (allow service_t state_t (sock_file (getattr create unlink write setattr)))
    (allow service_t self (unix_stream_socket (create bind listen accept connect getattr read write getopt setopt shutdown)))
"""


def render(policy: Policy) -> str:
    """The module. Raises ConfigError for paths that cannot be written."""
    text = head.comment(policy, "SELinux module in CIL",
                        head.NOT_ENFORCED + ": load it with semodule -i where the kernel has SELinux", sign=";") + RULES
    for name in SYSTEM_TYPES:
        text += (f"    (optional reads_{name}\n        (allow confined {name} (file (getattr open read execute map)))\n"
                 f"        (allow confined {name} (dir (getattr open read search)))\n"
                 f"        (allow confined {name} (lnk_file (getattr read))))\n")
    text += ")\n"
    contexts = [(pattern(policy.program), "file", "exec_t")]
    contexts += [(f"{pattern(path)}(/.*)?", "any", "readable_t") for path in policy.listed]
    contexts += [(f"{folder}(/.*)?", "any", "state_t") for folder in ("/run/pyproc", "/var/lib/pyproc")]
    return text + "".join(f'(filecon "{path}" {kind} (system_u object_r pyproc.{label} ((s0) (s0))))\n'
                          for path, kind, label in contexts)


def pattern(path: str) -> str:
    """A PCRE that matches `path` and nothing else."""
    carried = head.carried("an SELinux module", "path", path, forbidden='"')
    return "".join(c if c in PLAIN else "\\x20" if c == " " else c if not c.isascii() else f"\\{c}" for c in carried)
