"""Why has a job not run?  Ask the queue: the first text is the answer."""

from dbbasic_queue import Queue, enqueue
from dbbasic_queue.limits import pause, rate
from dbbasic_queue.why import why


def shout(payload):
    return payload.upper()


queue = Queue()
first = enqueue("shout", "one", queue="mail")
second = enqueue("shout", "two", queue="mail")
last = enqueue("shout", "three", queue="mail", after=second)
unknown = enqueue("whisper", "four")

queue.process_jobs({"shout": shout}, admit=[rate(1, 3600, queue="mail")])
pause("mail")

for id in (first, second, last, unknown):
    job = queue.get(id)
    print(f"{job.payload}: {why(id)[0]}")
