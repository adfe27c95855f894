"""A proxy of aiohttp alone that streams what it gets: what a hop in Python costs at least.

Runs in minimal-transformer's environment, so that both have the same versions of everything.
"""

import argparse
import asyncio

import aiohttp
import uvloop
from aiohttp import web


async def serve(port: int, predictor_url: str) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            async with session.request(
                request.method, predictor_url + request.path, data=await request.read()
            ) as answer:
                sent = web.StreamResponse(status=answer.status)
                sent.content_type = answer.content_type
                await sent.prepare(request)
                async for chunk in answer.content.iter_any():
                    await sent.write(chunk)
                await sent.write_eof()
                return sent

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--http_port", type=int, required=True)
    parser.add_argument("--predictor_url", required=True)
    arguments, _ = parser.parse_known_args()
    uvloop.run(serve(arguments.http_port, arguments.predictor_url))
