"""What a user has registered with a worker: what a start of the worker reads. Knows nothing of how it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List

from ._hooks import INTERCEPTED
from ._task import Task


@dataclass
class Setup:
    """The options, tasks, crontabs and hooks of a worker."""

    settings: Dict[str, str]
    tasks: Dict[str, Task] = field(default_factory=dict)
    crontabs: List[bytes] = field(default_factory=list)
    observers: Dict[str, List[Callable[..., Any]]] = field(default_factory=dict)
    interceptors: Dict[str, List[Callable[..., Any]]] = field(
        default_factory=lambda: {name: [] for name in INTERCEPTED}
    )
