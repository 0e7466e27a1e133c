import asyncio
import socket


async def main():
    left, right = socket.socketpair()
    reader, mouth = await asyncio.open_connection(sock=left)
    _ear, writer = await asyncio.open_connection(sock=right)
    writer.write(b"hello\n")
    await writer.drain()
    assert await asyncio.wait_for(reader.readline(), 5) == b"hello\n"
    writer.close()
    mouth.close()
    assert await asyncio.to_thread(sum, range(100)) == 4950
    await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(50)))
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))


asyncio.run(main())
