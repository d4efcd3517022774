#!/usr/bin/env python3
"""The figures of a queue for Prometheus, over HTTP; without a server, two lines of a shell do.

    pip install 'dbbasic-queue[metrics]'
    python prometheus_metrics.py 9108              then: curl localhost:9108/metrics

A scrape reads what has changed in the file since the last one, and holds up nobody. With
node_exporter on the machine this needs neither a process nor a port; in the crontab:

    * * * * *  dbbasic-queue --file /app/data/queue.tsv metrics --out /var/lib/node/queue.prom

What to be woken for:

    dbbasic_queue_last_tick_age_seconds > 180                  cron or the worker is gone
    max(dbbasic_queue_oldest_due_age_seconds) > 600            the workers do not keep up
    dbbasic_queue_success_ratio < 0.9                          of the last day
    sum(delta(dbbasic_queue_jobs{status="failed"}[10m])) > 0   a job has failed for good
"""

import sys
import time

from prometheus_client import CollectorRegistry, start_http_server

from dbbasic_queue import enqueue, process_jobs
from dbbasic_queue.metrics import collector


def greet(payload):
    return f"Hello, {payload['name']}!"


def serve(port):
    """Answer scrapes of this machine, in a thread; return the port."""
    registry = CollectorRegistry()  # or prometheus_client.REGISTRY, beside your own metrics
    registry.register(collector())
    server, _ = start_http_server(port, addr="127.0.0.1", registry=registry)
    return server.server_port


if __name__ == "__main__":
    for name in ("Ana", "Ben"):
        enqueue("greet", {"name": name})
    process_jobs({"greet": greet})
    enqueue("greet", {"name": "Cleo"})

    port = serve(int(sys.argv[1]) if len(sys.argv) > 1 else 9108)
    print(f"http://127.0.0.1:{port}/metrics", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass
