"""Every system call number is answered as the profile says, and a sweep sees where it is not."""

from __future__ import annotations

import sys

import pytest

from pyproc import Pool, Sandbox
from pyproc.attack import sweep
from pyproc.attack.targets import Targets
from pyproc.sandbox import derive, profile

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="system call numbers are a Linux kernel's"), pytest.mark.slow]


def pool_under(name):
    return lambda script, env, **options: Pool(script, sandbox=Sandbox(name), env=dict(env), **options)


@pytest.fixture(scope="module")
def targets():
    with Targets() as made:
        yield made


@pytest.mark.parametrize("name", profile.SHIPPED)
def test_every_number_is_answered_as_the_profile_says(name, targets):
    native, *foreign = sweep.sweep(pool_under(name), targets, profile.shipped(name), foreign=name == "strict")
    assert not [text for gate in (native, *foreign) for text in gate.differences]
    assert native.called + len(native.skipped) > max(sweep.syscall_table(native.gate).values())
    assert native.ends["allowed"] > 70 and native.ends["refused"] > 300
    assert bool(foreign) == (name == "strict" and sweep.platform.machine() == "x86_64")
    assert all(gate.ends["killed"] == gate.called > 450 for gate in foreign)
    assert all(native.skipped.values())


def test_a_pool_under_another_profile_differs(targets):
    native = sweep.sweep(pool_under("strict"), targets, profile.shipped("default"), foreign=False)[0]
    assert any("(bind): the profile says allowed, the kernel refused EPERM" in text for text in native.differences)


def test_a_filter_that_lets_foreign_numbers_by_differs(targets):
    if sweep.platform.machine() != "x86_64":
        pytest.skip("only x86_64 has gates of other architectures")
    harmless = bytes.fromhex("060000000000ff7f")
    for gate in sweep._foreign(targets, harmless, 40):
        assert len(gate.differences) > 40, gate


def test_of_two_answers_the_strictest_counts():
    strict = profile.shipped("strict")
    first, second = derive.zygote_filter(strict), derive.worker_template(strict)[0]
    table = sweep.syscall_table(strict.machine)
    arch = sweep.seccomp.AUDIT_ARCH[strict.machine]

    def answer(name, arguments=(-1,) * 6):
        return sweep._expected(first, second, table[name], arguments, arch)

    expected = {"read": "allowed", "socket": "refused EPERM", "clone3": "refused ENOSYS", "setsid": "refused EPERM"}
    assert {name: answer(name) for name in expected} == expected
    assert sweep._expected(first, second, 39, (), sweep.seccomp.AUDIT_ARCH_I386) == "killed"
