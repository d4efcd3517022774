"""Jobs one after the other: extract, transform, load, each with the result of the one before.

A step that fails ends the chain: the steps behind it are cancelled, and `catch` reads what failed.
"""

from dbbasic_queue import process_jobs
from dbbasic_queue.batch import failed_jobs
from dbbasic_queue.chain import enqueue_chain, get_chain, previous_result


def extract(payload: dict) -> list[str]:
    return [f"{payload['table']} {number}" for number in range(3)]


def transform(payload: None) -> list[str]:
    return [row.upper() for row in previous_result()]


def load(payload: dict) -> dict:
    if payload["into"] == "nowhere":
        raise ConnectionError("no such warehouse")
    return {"rows": len(previous_result())}


def report(payload: None) -> str:
    return ", ".join(f"{job.type}: {job.error}" for job in failed_jobs())


HANDLERS = {"extract": extract, "transform": transform, "load": load, "report": report}

if __name__ == "__main__":
    chains = [
        enqueue_chain(
            [
                ("extract", {"table": table}),
                ("transform",),
                {"job_type": "load", "payload": {"into": target}, "max_attempts": 1},
            ],
            name=f"ETL of {table}",
            catch=("report",),
        )
        for table, target in (("orders", "warehouse"), ("stock", "nowhere"))
    ]
    process_jobs(HANDLERS)
    for begun in chains:
        chain = get_chain(begun.id)
        step = f"step {chain.current_step} of {chain.total}, {chain.progress} %"
        print(f"{chain.name}: {step}, {'ok' if chain.ok else 'not ok'}")
        for job in chain.jobs():
            print("  ", job.type, job.status, job.error or job.result)
