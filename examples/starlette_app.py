"""A Starlette application that adds jobs without blocking its loop, and waits for a result.

    pip install dbbasic-queue starlette uvicorn a2wsgi
    uvicorn starlette_app:app                                  or: hypercorn starlette_app:app

    curl --json '{"name": "Ana"}' localhost:8000/greet         {"id": "660d8486b75a07fd"}
    curl localhost:8000/jobs/660d8486b75a07fd                  {"status": "pending", "result": null}
    curl localhost:8000/jobs/660d8486b75a07fd/end              answers when the job has ended

The same as fastapi_app.py, for coroutines throughout: each call of the queue is made in a thread.
"""

import asyncio
import logging
import os
from contextlib import asynccontextmanager

from a2wsgi import WSGIMiddleware
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

from dbbasic_queue import Queue, QueueError
from dbbasic_queue.web import dashboard

PATIENCE = 10  # seconds that a client is kept waiting for a job's end
TOKEN = os.environ.get("DBBASIC_QUEUE_TOKEN")
log = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def lifespan(app):
    queue = Queue(lock_timeout=2)  # better 503 than threads that wait for the usual 20 s
    await run_in_threadpool(queue.counts)  # a file that is no queue is an error now
    yield {"queue": queue}  # in each request's state; there is nothing to close


async def greet(request):
    try:
        payload = {"name": str((await request.json())["name"])[:100]}
    except (ValueError, KeyError, TypeError):
        raise HTTPException(400, 'send JSON such as {"name": "Ana"}') from None
    id = await run_in_threadpool(request.state.queue.enqueue, "greet", payload)
    return JSONResponse({"id": id}, 202)


async def status(request):
    return answer(await run_in_threadpool(request.state.queue.get, request.path_params["id"]))


async def end(request):
    """Answer when the job has ended."""
    waiting = end_of(request.state.queue, request.path_params["id"])
    try:
        return answer(await asyncio.wait_for(waiting, PATIENCE))
    except asyncio.TimeoutError:
        raise HTTPException(504, "it has not ended yet; ask again") from None


async def front(request):
    return PlainTextResponse("The application itself is none of the queue's business.\n")


async def end_of(queue, id):
    """Return a job when it has ended, None when there is no such job."""
    while (job := await run_in_threadpool(queue.get, id)) and not job.finished:
        await asyncio.sleep(0.1)
    return job


def answer(job):
    if job is None:
        raise HTTPException(404, "there is no such job")
    return JSONResponse({"status": job.status, "result": job.result})


async def unusable(request, error):
    """The disk is full, or somebody held the lock for too long: nothing was done."""
    log.error("%s", error)
    text = {"error": "the queue cannot be used now; try again later"}
    return JSONResponse(text, 503, {"Retry-After": "1"})


routes = [
    Route("/", front),
    Route("/greet", greet, methods=["POST"]),
    Route("/jobs/{id}", status),
    Route("/jobs/{id}/end", end),
]
if TOKEN:  # hosts= names the server, where it has another name than localhost
    routes += [Mount("/queue", WSGIMiddleware(dashboard(token=TOKEN, private=True)))]
app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={QueueError: unusable})
