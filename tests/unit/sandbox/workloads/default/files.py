import os
import pathlib
import shutil
import tempfile

with tempfile.TemporaryDirectory() as folder:
    here = pathlib.Path(folder)
    (here / "a").write_text("x" * 1000)
    shutil.copyfile(here / "a", here / "b")
    os.rename(here / "b", here / "c")
    os.link(here / "a", here / "d")
    os.symlink("a", here / "e")
    os.truncate(here / "c", 10)
    (here / "f" / "g").mkdir(parents=True)
    assert sorted(p.name for p in here.iterdir()) == ["a", "c", "d", "e", "f"]
with tempfile.NamedTemporaryFile() as file:
    file.write(b"x")
    file.flush()
    os.fsync(file.fileno())
