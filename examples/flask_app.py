#!/usr/bin/env python3
"""A Flask application with the routes of the queue: jobs are added, asked for and steered by HTTP.

    pip install 'dbbasic-queue[web]'
    QUEUE_KEY=secret python flask_app.py 8000

    curl -H 'X-Key: secret' localhost:8000/api/jobs/stats
    curl -H 'X-Key: secret' --json '{"name": "greet", "data": {"name": "Ana"}}' \\
        localhost:8000/api/jobs/dispatch                  {"success": true, "job_id": "…", …}

`auth` says who may: here whoever knows the key; in most applications `lambda request:
current_user.is_admin`. Without it only this machine is answered, and a proxy on this machine would
let everybody in: so say it where there is one. init_app(…, dashboard="/queue") mounts the pages
beside the routes, behind the same question. The worker is cron's, as ever.
"""

import hmac
import os
import sys

from flask import Flask
from werkzeug.serving import make_server

from dbbasic_queue.contrib.flask import init_app

KEY = os.environ.get("QUEUE_KEY", "")


def may(request):
    """Whether a request carries the key; nobody does while there is none."""
    given = request.headers.get("X-Key", "")
    return bool(KEY) and hmac.compare_digest(given.encode(), KEY.encode())


app = Flask(__name__)
init_app(app, auth=may)


@app.get("/")
def front():
    return "The application itself is none of the queue's business.\n"


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    server = make_server("127.0.0.1", port, app)  # in earnest: gunicorn flask_app:app
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()
