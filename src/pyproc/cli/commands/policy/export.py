"""`pyproc policy export --format FORMAT`: the policy in the words of the program that is to enforce it, on standard output."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import click

from pyproc.cli import output, target
from pyproc.cli.main import VERBS

if TYPE_CHECKING:
    from pyproc.policy.subject import Policy

FORMATS = ("oci", "apparmor", "selinux", "systemd", "kubernetes", "docker", "text")
PARTS = {"systemd": ("unit", "sysusers", "tmpfiles"), "kubernetes": ("pod", "seccomp")}  # the first is what is meant without --part


@click.command(short_help="Write the policy for another program.")
@click.option("--format", "wanted", required=True, type=click.Choice(FORMATS), help="Who is to read it.")
@click.option("--part", help="systemd: unit, sysusers or tmpfiles; kubernetes: pod or seccomp.")
@click.option("--start", metavar="COMMAND", help="systemd: the command line of the program that makes the pool.")
@click.option("--foreign-clients", is_flag=True, help="systemd: clients of other uids may connect, and are to be told apart.")
@target.worker
@target.shared
def command(wanted: str, part: str | None, start: str | None, script: str | None, profile: str | None, layers: dict[str, str],
            config: str | None, *, foreign_clients: bool, as_json: bool) -> None:
    """Write what workers of this configuration may do in another program's format. No worker is run, nothing is installed."""
    from pyproc.policy import survey

    part = _part(wanted, part)
    if wanted != "systemd" and (start is not None or foreign_clients):
        raise click.UsageError("--start and --foreign-clients belong to --format systemd; leave them out")
    policy = survey.anywhere(target.spec_of(script, config, profile, layers))
    text = _renderings(start, foreign_clients=foreign_clients)[wanted, part](policy)
    if as_json:
        output.write(output.encode({
            "ok": True, "format": wanted, "part": part or None, "version": policy.version, "profile": policy.profile,
            "filter_sha256": policy.filter_sha256, "text": text}))
    else:
        output.write(text.removesuffix("\n"))


def _part(wanted: str, part: str | None) -> str:
    known = PARTS.get(wanted, ())
    if part is None:
        return known[0] if known else ""
    if part not in known:
        raise click.UsageError(f"--part is {part!r}; possible for {wanted} are {', '.join(known)}" if known
                               else f"--part is {part!r}, and {wanted} has no parts; leave it out")
    return part


def _renderings(start: str | None, *, foreign_clients: bool) -> Mapping[tuple[str, str], Callable[[Policy], str]]:
    """(format, part) -> what writes it."""
    from pyproc.policy import apparmor, docker, kubernetes, oci, selinux, systemd, text

    words, note = _start(start)
    return {
        ("oci", ""): oci.render, ("apparmor", ""): apparmor.render, ("selinux", ""): selinux.render, ("docker", ""): docker.render,
        ("text", ""): lambda policy: output.show(text.export(policy)),
        ("kubernetes", "pod"): kubernetes.render, ("kubernetes", "seccomp"): kubernetes.seccomp,
        ("systemd", "unit"): lambda policy: systemd.render(policy, start=words, foreign_clients=foreign_clients, note=note),
        ("systemd", "sysusers"): systemd.sysusers, ("systemd", "tmpfiles"): systemd.tmpfiles,
    }


def _start(start: str | None) -> tuple[tuple[str, ...], str]:
    """The words of ExecStart, and what is to be said of them."""
    from pyproc.policy import systemd

    if start is None:
        missing = "" if "serve" in VERBS else "this version has no verb serve: name your program that makes the pool by --start"
        return systemd.START, missing
    try:
        words = tuple(shlex.split(start))
    except ValueError as error:
        raise click.UsageError(f"--start is {start!r}: {error}; quote it as for a shell") from error
    if not words:
        raise click.UsageError("--start is empty; give the command line of the program that makes the pool")
    return words, ""
