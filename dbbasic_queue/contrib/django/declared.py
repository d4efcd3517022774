"""The tasks that are declared in this process, by their path: what a worker may run.

A type in the file is a key here and never imported by its name.  Modules are imported because the
settings name them: `tasks` of every installed application, and those of the option `modules`.
"""

import sys

from django.apps import apps
from django.utils.module_loading import autodiscover_modules, import_string

from .framework import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

tasks: "dict[str, Task]" = {}  # by path, as in "shop.tasks.send"


def declare(task: Task) -> None:
    """Let workers of this process know a task; what `using` makes of it is no other one."""
    known = tasks.get(task.module_path)
    if known is None or known.func is not task.func:
        tasks[task.module_path] = task


def discover(modules: "Iterable[str]" = ()) -> None:
    """Import the modules in which tasks are declared, and take those of other back ends too."""
    autodiscover_modules("tasks")
    for name in modules:
        import_string(f"{name}.__name__")  # of the settings: no job says what is imported
    for name in (*(f"{app.name}.tasks" for app in apps.get_app_configs()), *modules):
        for one in list(vars(sys.modules.get(name, object)).values()):
            if isinstance(one, Task):
                declare(one)


def task_of(path: str, modules: "Iterable[str]" = ()) -> "Task | None":
    """Return the task of a type, None where none of that name is declared."""
    if path not in tasks:
        discover(modules)
    return tasks.get(path)
