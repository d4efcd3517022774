"""The application, for INSTALLED_APPS: it brings `manage.py process_jobs`."""

from django.apps import AppConfig


class QueueConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    name = "dbbasic_queue.contrib.django"
    label = "dbbasic_queue"
    verbose_name = "dbbasic-queue"

    def ready(self) -> None:
        """Let `manage.py check` ask the back ends, as the framework's own application does."""
        from .framework import register_checks

        register_checks()
