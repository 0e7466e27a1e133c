"""The two files of attestations, beside the configuration: `attestations`, and its key `attestations.key`.

Rules: the key is made at the first record, 0600, and is refused where others may read or write it or where it is not ours: then
a record would prove nothing. Records are appended and synced, never rewritten. Neither file is followed through a link.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from pyproc.doctor import attestation
from pyproc.doctor.attestation import KEY_BYTES, Record
from pyproc.errors import ConfigError

BYTES_MAX = 4 << 20  # ten thousand records and more


def read(config: str) -> tuple[list[Record], list[str]]:
    """The records beside `config` that verify, and what is wrong with the others. No file: none."""
    path = _beside(config, "attestations")
    try:
        text = _content(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{path} cannot be read: {error.strerror}"]
    try:
        return attestation.read(text, _key(config, make=False))
    except ConfigError as error:
        return [], [str(error)]


def append(config: str, record: Record) -> Path:
    """Sign and keep a record; the file. Raises ConfigError."""
    path = _beside(config, "attestations")
    line = attestation.sign(record, _key(config, make=True)).encode()
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            if os.write(fd, line) != len(line):
                raise OSError(None, "the record was written in part")
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; attest as the owner of the configuration's folder") from error
    return path


def _key(config: str, *, make: bool) -> bytes:
    path = _beside(config, "attestations.key")
    try:
        if make:
            _make(path)
        key = _content(path, private=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be used: {error.strerror}; it must be readable for you, 0600 and no link") from error
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path} has {len(key)} bytes, a key has {KEY_BYTES}; restore it, or remove it and attest anew")
    return key


def _make(path: Path) -> None:
    """A new key, unless there is one. Written in full before it has its name: two who begin at once get the same."""
    if os.path.lexists(path):
        return
    beginning = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    fd = os.open(beginning, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, secrets.token_bytes(KEY_BYTES))
        os.fsync(fd)
        os.link(beginning, path)
    except FileExistsError:
        pass  # another one was quicker
    finally:
        os.close(fd)
        os.unlink(beginning)


def _content(path: Path, *, private: bool = False) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(None, "it is no file")
        if private and (found.st_mode & 0o077 or found.st_uid not in (0, os.geteuid())):
            raise OSError(None, f"its mode is {found.st_mode & 0o777:04o} and its owner {found.st_uid}")
        data = os.read(fd, BYTES_MAX + 1)
    finally:
        os.close(fd)
    if len(data) > BYTES_MAX:
        raise OSError(None, f"it is longer than {BYTES_MAX} bytes")
    return data


def _beside(config: str, name: str) -> Path:
    return Path(config).absolute().with_name(name)
