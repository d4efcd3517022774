"""Django's Tasks framework: `django.tasks` where it is (Django 6.0 on), else its back-port."""

try:
    from django import tasks as framework
    from django.tasks import exceptions
    from django.tasks.backends.base import BaseTaskBackend as BaseTaskBackend
    from django.tasks.base import Task as Task
    from django.tasks.base import TaskError as TaskError
    from django.tasks.signals import task_enqueued as task_enqueued
    from django.tasks.signals import task_finished as task_finished
    from django.tasks.signals import task_started as task_started
    from django.utils.json import normalize_json as normalize_json
except ImportError:
    import django_tasks as framework
    from django_tasks import exceptions
    from django_tasks.backends.base import BaseTaskBackend as BaseTaskBackend
    from django_tasks.base import Task as Task
    from django_tasks.base import TaskError as TaskError
    from django_tasks.signals import task_enqueued as task_enqueued
    from django_tasks.signals import task_finished as task_finished
    from django_tasks.signals import task_started as task_started
    from django_tasks.utils import normalize_json as normalize_json

TaskContext = framework.TaskContext
TaskResult = framework.TaskResult
TaskResultStatus = framework.TaskResultStatus
InvalidTask = getattr(exceptions, "InvalidTask", None) or exceptions.InvalidTaskError
TaskResultDoesNotExist = exceptions.TaskResultDoesNotExist
task_backends = framework.task_backends
DEFAULT = framework.DEFAULT_TASK_BACKEND_ALIAS
NAME: str = framework.__name__
LEAST, MOST = -100, 100  # priorities, of which the framework lets the higher one run first


def register_checks() -> None:
    """Let Django's checks ask the back ends; Django 6.0 does so by itself."""
    if NAME == "django_tasks":
        import django_tasks.checks  # noqa: F401  # it registers when it is imported
