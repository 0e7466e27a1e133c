"""Files by position, by descriptor of their directory, from file to file, mapped."""

import mmap
import os
import shutil
import tempfile

with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    here = os.open(".", os.O_RDONLY)
    os.fchdir(here)
    os.mkdir("d", dir_fd=here)
    with open("a", "w+b") as file:
        file.write(b"x" * 8192)
        file.flush()
        os.pwrite(file.fileno(), b"abc", 0), os.pwritev(file.fileno(), [b"d", b"e"], 3)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        os.posix_fallocate(file.fileno(), 0, 16384)
        file.truncate(4096)
        os.fdatasync(file.fileno()), os.fsync(file.fileno())
        with mmap.mmap(file.fileno(), 4096) as memory:
            memory[0:3] = b"ABC"
            memory.flush()
    with open("a", "rb") as source, open("b", "wb") as target:
        os.copy_file_range(source.fileno(), target.fileno(), 100)
        os.sendfile(target.fileno(), source.fileno(), 0, 100)
    os.rename("b", "c", src_dir_fd=here, dst_dir_fd=here)
    os.link("c", "e", src_dir_fd=here, dst_dir_fd=here)
    os.symlink("c", "f", dir_fd=here)
    assert os.readlink("f", dir_fd=here) == "c"
    os.unlink("f", dir_fd=here), os.rmdir("d", dir_fd=here)
    shutil.copyfile("a", "g")
    os.chdir("/")
