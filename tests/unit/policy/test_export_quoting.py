"""Whatever stands in a path comes out of each format as it went in, or is refused with value, limit and remedy."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_subjects import reading

from pyproc.errors import ConfigError
from pyproc.policy import apparmor, docker, kubernetes, selinux, systemd

TEXT = st.text(st.one_of(st.sampled_from(" \"'\\%$*?[]{}^@,:;#\n\t`&|<>()=-é\u2028\U0001f600\x7f\ufeff"), st.characters()), max_size=12)
PATHS = TEXT.map(lambda text: "/srv/" + text.replace("\0", ""))
CONTROL = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")


@given(PATHS)
def test_docker(path: str) -> None:
    if CONTROL.search(path):
        with pytest.raises(ConfigError, match="docker"):
            docker.mount(path)
        return
    words = shlex.split(docker.render(reading(path)).split("docker run", 1)[1])
    [mount] = [word for word in words if word.startswith("--mount=")]
    [fields] = csv.reader([mount.removeprefix("--mount=")])
    assert fields == ["type=bind", f"source={path}", f"target={path}", "readonly"]
    assert words[-1] == docker.IMAGE


@given(PATHS)
def test_kubernetes(path: str) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    try:
        pod = kubernetes.render(reading(path))
    except ConfigError:
        assert ":" in path or CONTROL.search(path)
        return
    spec = yaml.safe_load(pod)["spec"]
    assert [volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume] == [path]
    assert [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == "read-0"] == [path]


@given(TEXT)
def test_a_yaml_scalar_says_any_text(text: str) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    if re.search("[\ud800-\udfff]", text):
        with pytest.raises(ConfigError, match="Unicode"):
            kubernetes.quoted(text)
    else:
        assert yaml.safe_load(kubernetes.quoted(text)) == text


@given(PATHS)
def test_systemd(path: str) -> None:
    if CONTROL.search(path):
        with pytest.raises(ConfigError, match="systemd"):
            systemd.quoted(path)
        return
    word = systemd.quoted(path)  # systemd.syntax(7): in quotes a backslash escapes; systemd.unit(5): %% is one percent sign
    assert re.fullmatch(r'"(?:[^"\\%]|\\["\\]|%%)*"', word)
    assert re.sub(r"\\(.)|%%", lambda match: match[1] or "%", word[1:-1]) == path


@given(PATHS)
def test_selinux(path: str) -> None:
    if CONTROL.search(path) or '"' in path:
        with pytest.raises(ConfigError, match="SELinux"):
            selinux.pattern(path)
        return
    pattern = selinux.pattern(path)
    assert re.fullmatch(pattern, path) and not re.search(r"[ \n]", pattern)
    assert not re.fullmatch(pattern, path + "x") and not re.fullmatch(pattern, "x" + path)


@given(PATHS)
def test_apparmor(path: str) -> None:
    if CONTROL.search(path) or '"' in path or "\\" in path:
        with pytest.raises(ConfigError, match="AppArmor"):
            apparmor.quoted(path)
        return
    assert re.fullmatch(r'"(?:[^\\"*?\[\]{}^@]|\\[*?\[\]{}^@])*"', apparmor.quoted(path))
    assert re.sub(r"\\(.)", r"\1", apparmor.quoted(path)[1:-1]) == path


@pytest.mark.parametrize("write", [docker.mount, systemd.quoted, selinux.pattern, apparmor.quoted])
def test_a_refusal_names_value_limit_and_remedy(write: Callable[[str], str]) -> None:
    with pytest.raises(ConfigError) as caught:
        write("/srv/a\nb")
    assert "'/srv/a\\nb'" in str(caught.value) and "it holds '\\n'" in str(caught.value) and "rename the file" in str(caught.value)
