"""A stand-in for a vLLM server: answers at once, naming the first ads that its prompt lists.

    python -m loadtest.fake_vllm --port 8001

    LLM_AUCTION_ENGINE__KIND=remote LLM_AUCTION_ENGINE__URL=http://127.0.0.1:8001 make serve

For measuring and breaking everything around the model: no generation is faster, and every answer
holds ads to click on. It speaks as much of the OpenAI-compatible API as the service uses.
"""

import argparse
import asyncio
import json
import re
from collections.abc import AsyncIterator
from itertools import islice
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

MODEL = "fake"
_LISTED = re.compile(r'^\{(?=.*"id":)(?=.*"title":).*\}$', re.MULTILINE)
Json = dict[str, Any]


def create_fake(ads: int = 1, delay_s: float = 0.0) -> Starlette:
    """The server. ads: how many of the listed it inserts. delay_s: before the first token."""

    async def health(request: Request) -> Response:
        return Response()

    async def models(request: Request) -> Response:
        return JSONResponse({"data": [{"id": MODEL, "root": MODEL, "max_model_len": 1 << 17}]})

    async def complete(request: Request) -> Response:
        try:
            body = await request.json()
        except ClientDisconnect:  # killed in the middle of asking, as the crash script does
            return Response(status_code=400)
        await asyncio.sleep(delay_s)
        return StreamingResponse(_stream(body, ads), media_type="text/event-stream")

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/chat/completions", complete, methods=["POST"]),
        ]
    )


def listed_ads(prompt: str, count: int) -> list[tuple[str, str]]:
    """Id and title of the first `count` ads in the prompt's list."""
    lines = (match[0] for match in islice(_LISTED.finditer(prompt), count))
    return [(ad["id"], ad["title"]) for ad in map(json.loads, lines)]


async def _stream(body: Json, ads: int) -> AsyncIterator[str]:
    system = body["messages"][0]["content"]
    chosen = listed_ads(system, ads) if body["messages"][0]["role"] == "system" else []
    words = ["Here", " is", " an", " answer", "."]
    words += [f" Try @{title}@[{ad_id}]." for ad_id, title in chosen]
    words = words[: body.get("max_tokens") or len(words)]
    for count, word in enumerate(words, 1):
        usage = {"prompt_tokens": len(system) // 4, "completion_tokens": count}
        yield _event({"choices": [{"delta": {"content": word}}], "usage": usage})
    yield _event({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage})
    yield "data: [DONE]\n\n"


def _event(data: Json) -> str:
    return f"data: {json.dumps(data)}\n\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--ads", type=int, default=1, help="inserted in each answer")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="before the first token")
    options = parser.parse_args()
    app = create_fake(options.ads, options.delay_ms / 1000)
    uvicorn.run(app, port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
