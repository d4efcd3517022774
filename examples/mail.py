#!/usr/bin/env python3
"""Send mail in the background, so that nobody waits for the mail server.

    python mail.py ana@example.com      add a job, then run a tick
    python mail.py                      run a tick: mail that is due goes out

The server is $SMTP_HOST:$SMTP_PORT, else localhost:25. When it is down, the job waits for a
minute, then for two, then for four; an address that it refuses for good is not tried again.
"""

import os
import smtplib
import sys
import time
from email.message import EmailMessage

from dbbasic_queue import Discard, current_job, enqueue, get_job, process_jobs


def send_email(payload):
    message = EmailMessage()
    message["From"] = os.environ.get("MAIL_FROM", "noreply@example.com")
    message["To"] = payload["to"]
    message["Subject"] = payload["subject"]
    # The same in every attempt, so a mail that did go out twice can be told to be one.
    message["Message-ID"] = f"<{current_job().id}@example.com>"
    message.set_content(payload["body"])

    host = os.environ.get("SMTP_HOST", "localhost")
    port = int(os.environ.get("SMTP_PORT", "25"))
    try:
        with smtplib.SMTP(host, port, timeout=30) as smtp:
            smtp.send_message(message)
    except smtplib.SMTPRecipientsRefused as refused:
        [(code, reason)] = refused.recipients.values()
        if code >= 500:
            raise Discard(f"{payload['to']}: {code} {reason.decode()}") from None
        raise
    return {"sent_at": time.time()}


HANDLERS = {"send_email": send_email}

if __name__ == "__main__":
    ids = [
        enqueue(
            "send_email",
            {"to": to, "subject": "Welcome!", "body": "Thanks for signing up."},
            max_attempts=6,
        )
        for to in sys.argv[1:]
    ]
    process_jobs(HANDLERS)
    for job in map(get_job, ids):
        print(job["id"], job["status"], job["error"] or "")
