"""A pod whose container's securityContext is the policy's, and the seccomp file that it names. Pure.

Rules and reasons:
* The file belongs on each node, below the kubelet's folder of seccomp profiles, as `localhostProfile` says.
* YAML is written, never parsed here: every value is a double-quoted scalar, in which all text can be said, control characters and
  quotes escaped; keys are fixed words.
* `procMount` and `hostUsers` stay at their defaults: the pool needs no /proc of its own, and with a user namespace of the pod it
  nests another one, which the kernel allows.
"""

from __future__ import annotations

from pyproc.policy import docker, head, oci, service
from pyproc.policy.subject import Policy
from pyproc.sandbox.oci_export import to_oci

PROFILE_PATH = "profiles/pyproc-service.json"


def render(policy: Policy) -> str:
    """The pod as YAML."""
    limits = policy.limits
    memory = docker.bytes_of(policy)
    text = head.comment(policy, "Kubernetes pod", *docker.LOST, head.NOT_ENFORCED + " here: the node enforces it",
                        f"put the output of `--part seccomp` on each node as {PROFILE_PATH}, below the kubelet's folder seccomp")
    cpu = f"\n          cpu: {quoted(f'{round(1000 * policy.workers * limits.cpus)}m')}" if limits.cpus else ""
    return text + f"""\
apiVersion: v1
kind: Pod
metadata:
  name: pyproc
  annotations:
    pyproc/profile: {quoted(policy.profile)}
    pyproc/filter-sha256: {quoted(policy.filter_sha256)}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    runAsNonRoot: true
    runAsUser: {docker.UID}
    runAsGroup: {docker.UID}
    fsGroup: {docker.UID}
    seccompProfile:
      type: Localhost
      localhostProfile: {PROFILE_PATH}
  containers:
    - name: pyproc
      image: {docker.IMAGE}:{policy.version}
      securityContext:
        allowPrivilegeEscalation: false
        privileged: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: ["ALL"]
        appArmorProfile:
          type: Unconfined
      resources:
        limits:
          memory: {quoted(str(memory))}{cpu}
        requests:
          memory: {quoted(str(memory))}{cpu}
      volumeMounts:
        - name: run
          mountPath: /run/pyproc
        - name: tmp
          mountPath: /tmp
{_mounts(policy)}  volumes:
    - name: run
      emptyDir:
        medium: Memory
        sizeLimit: 1Mi
    - name: tmp
      emptyDir:
        medium: Memory
        sizeLimit: 16Mi
{_volumes(policy)}"""


def seccomp(policy: Policy) -> str:
    """The filter around the service, in the OCI format: for the node's file, and for docker's option."""
    return oci.with_head(policy, to_oci(service.around(policy.source)), "OCI seccomp profile of a whole service")


def quoted(text: str) -> str:
    """`text` as a double-quoted YAML scalar (YAML 1.2, 5.7). Raises ConfigError for lone surrogates, which it cannot say."""
    if any(0xD800 <= ord(c) < 0xE000 for c in text):
        raise head.refuse("YAML", "text", text, "it is not Unicode", "rename the file, or leave it out of sandbox.read")
    return '"' + "".join(_escaped(c) for c in text) + '"'


def _escaped(c: str) -> str:
    if c in '"\\':
        return "\\" + c
    if c == " " or (c.isprintable() and c != "\ufeff"):
        return c
    return f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" if ord(c) < 65536 else f"\\U{ord(c):08x}"


def _mounts(policy: Policy) -> str:
    return "".join(f"        - name: read-{at}\n          mountPath: {quoted(_mountable(path))}\n          readOnly: true\n"
                   for at, path in enumerate(policy.listed))


def _volumes(policy: Policy) -> str:
    return "".join(f"    - name: read-{at}\n      hostPath:\n        path: {quoted(path)}\n" for at, path in enumerate(policy.listed))


def _mountable(path: str) -> str:
    if ":" in path:  # the API server's rule
        raise head.refuse("Kubernetes", "path", path, "a mountPath may not hold ':'", "rename the file, or mount a folder above it")
    return path
