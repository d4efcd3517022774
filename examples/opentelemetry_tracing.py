#!/usr/bin/env python3
"""A trace that goes on in the worker: a span for each run of a job, under the span that added it.

    pip install opentelemetry-sdk
    python opentelemetry_tracing.py

The producer's span travels in a column of the row, `traceparent`, in the words of the W3C; so any
script can give one, and `grep` finds the jobs of a trace. The layer `traced` makes the run a span
of the same trace, and links it too, as the conventions for messaging ask. Each attempt is a span.
"""

import sys
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from dbbasic_queue import Snooze, enqueue, process_jobs
from dbbasic_queue.layers import with_twin

tracer = trace.get_tracer("shop.jobs")


def enqueue_traced(job_type, payload=None, run_at=None, *, columns=None, **arguments):
    """Add a job that remembers the span it was added in; return its id."""
    with tracer.start_as_current_span(f"enqueue {job_type}", kind=SpanKind.PRODUCER) as span:
        carrier = {}
        propagate.inject(carrier)
        given = {**(columns or {}), "traceparent": carrier.get("traceparent", "")}
        id = enqueue(job_type, payload, run_at, columns=given, **arguments)
        span.set_attribute("messaging.message.id", id)
    return id


@contextmanager
def span_of(job):
    """The span of one run of a job; what it raises is kept there, and goes on."""
    context = propagate.extract({"traceparent": job.cell("traceparent")})
    producer = trace.get_current_span(context).get_span_context()
    with tracer.start_as_current_span(
        f"process {job.type}",
        context=context,
        kind=SpanKind.CONSUMER,
        links=[Link(producer)] if producer.is_valid else [],
        attributes={
            "messaging.system": "dbbasic-queue",
            "messaging.operation.type": "process",
            "messaging.destination.name": job.queue,
            "messaging.message.id": job.id,
            "job.type": job.type,
            "job.attempt": job.attempts,
        },
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except Snooze as later:  # no failure: it was put back
            span.add_event("snoozed", {"seconds": later.seconds})
            raise
        except BaseException as failure:
            span.record_exception(failure)
            span.set_status(Status(StatusCode.ERROR, type(failure).__name__))
            raise


def traced(job, call_next):
    """A layer that makes a span of each run: process_jobs(…, middleware=[traced])."""
    with span_of(job):
        return call_next(job)


async def _awaiting(job, call_next):
    with span_of(job):
        return await call_next(job)


with_twin(traced, _awaiting)  # the same for `async def` handlers, with concurrency=


def charge(payload):
    with tracer.start_as_current_span("ask the bank"):  # inside the span of the job
        return {"charged": payload["amount"]}


def refuse(payload):
    raise ValueError("no such card")


if __name__ == "__main__":
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    # in earnest: BatchSpanProcessor(OTLPSpanExporter()), made in the process that runs the jobs
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stdout)))
    trace.set_tracer_provider(provider)

    with tracer.start_as_current_span("POST /orders"):  # what a web framework does for you
        enqueue_traced("charge", {"amount": 5})
        enqueue_traced("refuse", max_attempts=1)

    process_jobs({"charge": charge, "refuse": refuse}, middleware=[traced])
    provider.shutdown()
