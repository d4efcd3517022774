#!/usr/bin/env python3
"""A web application that adds jobs and answers at once, while a worker runs them elsewhere.

    curl --data '{"name": "Ana"}' localhost:8000/greet     {"id": "660d8486b75a07fd"}
    curl localhost:8000/660d8486b75a07fd                   {"status": "completed", "result": …}

`application` is plain WSGI, so gunicorn or any other server can serve it; compose.yaml starts it
in one container and the worker in another.
"""

import json
import os
from wsgiref.simple_server import make_server

from dbbasic_queue import QueueError, enqueue, get_job


def application(environ, start_response):
    status, answer = respond(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ)
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(answer).encode() + b"\n"]


def respond(method, path, environ):
    if method == "POST" and path == "/greet":
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            payload = {"name": str(json.loads(environ["wsgi.input"].read(length))["name"])}
        except (ValueError, KeyError, TypeError):
            return "400 Bad Request", {"error": 'send JSON such as {"name": "Ana"}'}
        try:
            return "202 Accepted", {"id": enqueue("greet", payload)}
        except QueueError as error:  # the disk is full, or the lock did not come free
            print(error)
            return "503 Service Unavailable", {"error": "not stored; try again later"}
    job = get_job(path[1:]) if method == "GET" else None
    if job is None:
        return "404 Not Found", {"error": "there is no such job"}
    return "200 OK", {"status": job["status"], "result": job["result"]}


if __name__ == "__main__":
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000"))
    with make_server(host, port, application) as server:
        server.serve_forever()
