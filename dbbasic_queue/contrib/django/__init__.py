"""Django's Tasks on a queue that is one TSV file: no database, no Redis, no daemon.

    INSTALLED_APPS = [..., "dbbasic_queue.contrib.django"]
    TASKS = {"default": {"BACKEND": "dbbasic_queue.contrib.django.TSVBackend",
                         "OPTIONS": {"path": BASE_DIR / "data" / "queue.tsv"}}}

cron runs `manage.py process_jobs` each minute.  Needs the extra `django`: Django 6.0 or newer, or
an older one with django-tasks.
"""

from .backend import TSVBackend as TSVBackend
