"""A FastAPI application that adds jobs without blocking its loop, and waits for a result.

    pip install dbbasic-queue fastapi uvicorn a2wsgi
    uvicorn fastapi_app:app

    curl --json '{"name": "Ana"}' localhost:8000/greet         {"id": "660d8486b75a07fd"}
    curl localhost:8000/jobs/660d8486b75a07fd                  {"status": "pending", "result": null}
    curl localhost:8000/jobs/660d8486b75a07fd/end              answers when the job has ended

With $DBBASIC_QUEUE_TOKEN the dashboard is at /queue/, for whoever knows it. The worker is cron's,
as ever: worker.py. asgi.md says why some of it is a plain `def`, and some waits in a thread.
"""

import asyncio
import logging
import os
from contextlib import asynccontextmanager

from a2wsgi import WSGIMiddleware
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from dbbasic_queue import Queue, QueueError
from dbbasic_queue.web import dashboard

PATIENCE = 10  # seconds that a client is kept waiting for a job's end
TOKEN = os.environ.get("DBBASIC_QUEUE_TOKEN")
log = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.queue = Queue(lock_timeout=2)  # better 503 than threads that wait for the usual 20 s
    await asyncio.to_thread(app.state.queue.counts)  # a file that is no queue is an error now
    yield  # there is nothing to close


app = FastAPI(lifespan=lifespan)
if TOKEN:  # hosts= names the server, where it has another name than localhost
    app.mount("/queue", WSGIMiddleware(dashboard(token=TOKEN, private=True)))


class Greeting(BaseModel):
    name: str = Field(max_length=100)


@app.exception_handler(QueueError)
async def unusable(request: Request, error: QueueError):
    """The disk is full, or somebody held the lock for too long: nothing was done."""
    log.error("%s", error)
    text = {"error": "the queue cannot be used now; try again later"}
    return JSONResponse(text, 503, {"Retry-After": "1"})


@app.post("/greet", status_code=202)
def greet(greeting: Greeting, request: Request):  # no `async`: FastAPI calls it in a thread
    return {"id": request.app.state.queue.enqueue("greet", greeting.model_dump())}


@app.get("/jobs/{id}")
def status(id: str, request: Request):
    return answer(request.app.state.queue.get(id))


@app.get("/jobs/{id}/end")
async def end(id: str, request: Request):
    try:
        ended = await asyncio.wait_for(end_of(request.app.state.queue, id), PATIENCE)
    except asyncio.TimeoutError:
        raise HTTPException(504, "it has not ended yet; ask again") from None
    return answer(ended)


@app.get("/")
async def front():
    return "The application itself is none of the queue's business."


async def end_of(queue, id):
    """Return a job when it has ended, None when there is no such job."""
    while (job := await asyncio.to_thread(queue.get, id)) and not job.finished:
        await asyncio.sleep(0.1)
    return job


def answer(job):
    if job is None:
        raise HTTPException(404, "there is no such job")
    return {"status": job.status, "result": job.result}
