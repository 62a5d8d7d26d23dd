"""A WebSocket server that sends back what it gets: echo.py PORT."""

import asyncio
import logging
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except ConnectionClosed:
        pass  # the cases break the protocol on purpose


async def main():
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=2**26, compression=None, ping_interval=None) as server:
        await server.serve_forever()


asyncio.run(main())
