import asyncio
import os
import signal
import subprocess
import sys

command = [sys.executable, "-I", "-c", "print(6 * 7)"]
child = subprocess.run(command, capture_output=True, text=True, timeout=30)
assert child.stdout == "42\n", child.stderr
assert subprocess.run("exit 3", shell=True, timeout=30).returncode == 3
child = os.fork()
if child == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
sleeper = subprocess.Popen(["sleep", "60"])
sleeper.kill()
assert sleeper.wait(30) == -signal.SIGKILL


async def main():
    command = [sys.executable, "-I", "-c", "print(1)"]
    running = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert (await running.communicate())[0] == b"1\n"


asyncio.run(main())
