import asyncio
import socket


async def main():
    async def echo(reader, writer):
        writer.writelines([await reader.readline(), b"end"])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\n")
    assert await asyncio.wait_for(reader.read(), 5) == b"hello\nend"
    writer.close()
    server.close()


asyncio.run(main())
here, there = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in "ab")
here.bind(("127.0.0.1", 0))
there.sendto(b"x", here.getsockname())
assert here.recv(1) == b"x"
socket.create_server(("127.0.0.1", 0)).close()
