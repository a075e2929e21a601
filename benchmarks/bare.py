"""What our rates are compared with: FastAPI routes that do nothing but the MongoDB call, in a process of their own.

python -m benchmarks.bare PORT MONGODB_URI DATABASE

GET /<collection>/<id> is a find_one by _id, answered by orjson; POST /<collection> an insert_one, majority and journaled.
"""

import asyncio
import contextlib
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from pymongo import AsyncMongoClient
from pymongo.write_concern import WriteConcern

from demo.server import free_port

_JSON = "application/fhir+json"


def application(uri: str, database: str) -> FastAPI:
    """The two routes."""
    app = FastAPI()
    db = AsyncMongoClient[dict[str, Any]](uri)[database]
    durable = WriteConcern("majority", j=True)

    @app.get("/{collection}/{id_}")
    async def read(collection: str, id_: str) -> Response:
        found = await db[collection].find_one({"_id": id_}, {"search": 0})
        return Response(orjson.dumps(found["resource"]), media_type=_JSON) if found else Response(status_code=404)

    @app.post("/{collection}")
    async def create(collection: str, request: Request) -> Response:
        document = {"_id": uuid.uuid4().hex, "resource": orjson.loads(await request.body())}
        await db.get_collection(collection, write_concern=durable).insert_one(document)
        return Response(orjson.dumps(document["resource"]), 201, {"Location": f"/{collection}/{document['_id']}"}, _JSON)

    return app


@asynccontextmanager
async def bare(uri: str, database: str = "ris") -> AsyncIterator[int]:
    """These routes in a process of their own; its port."""
    async with listening([sys.executable, "-m", "benchmarks.bare"], [uri, database]) as port:
        yield port


@asynccontextmanager
async def listening(command: list[str], arguments: list[str], *, seconds: float = 60.0, **options: Any) -> AsyncIterator[int]:
    """A program, `command PORT arguments`, from when it listens on that port to the end of the block."""
    port = free_port()
    process = subprocess.Popen([*command, str(port), *arguments], stdin=subprocess.DEVNULL, **options)  # noqa: ASYNC220 - returns at once
    try:
        for _ in range(int(seconds / 0.05)):
            if process.poll() is not None:
                raise RuntimeError(f"{command[-1]} ended with exit code {process.returncode}")
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.05)
        else:
            raise RuntimeError(f"{command[-1]} does not listen")
        yield port
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 10)
        except subprocess.TimeoutExpired:
            process.kill()


def main() -> None:
    port, uri, database = sys.argv[1:]
    uvicorn.run(application(uri, database), port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
