"""A registered task, and the text of a failure. Knows nothing of how a job is pulled."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Tuple

from ._context import Context
from ._errors import ConfigError, TaskFailed


@dataclass(frozen=True)
class Task:
    """A function, its name, and how to call it."""

    name: str
    handler: Callable[..., Any]
    is_batch: bool = False
    #: The library's options: `timeout`, `backoff`.
    options: Dict[str, str] = field(default_factory=dict)
    is_async: bool = field(init=False)
    arity: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_async", _is_async(self.handler))
        object.__setattr__(self, "arity", _arity(self.name, self.handler))

    def arguments(self, context: Context) -> Tuple[Any, ...]:
        """Returns the arguments of the call: payload and context, or as many of them as the function takes."""
        payload = context.payload
        if self.is_batch and not isinstance(payload, list):
            raise TaskFailed(f"the payload of a batch task must be a JSON array, not {payload!r:.60}")
        return (payload, context)[: self.arity]

    def checked(self, result: Any) -> Any:
        """Returns the function's result. Raises if it is an awaitable: the job would seem to have succeeded."""
        if result is not None and inspect.isawaitable(result):
            getattr(result, "close", lambda: None)()
            raise TypeError(f"task {self.name} returned an awaitable, which is not awaited: register an async function")
        return result

    def item_errors(self, context: Context, result: Any) -> Optional[List[Optional[bytes]]]:
        """Returns the failures of a batch's items, or None if all of them succeeded."""
        if not self.is_batch or result is None:
            return None
        items = context.payload
        if not isinstance(result, (list, tuple)) or len(result) != len(items):
            raise TaskFailed(f"a batch task must return None or a list: one entry for each of its {len(items)} items")
        if all(item is None for item in result):
            return None
        return [None if item is None else text_of(item) for item in result]


def text_of(error: Any) -> bytes:
    """Returns the stored text of a failure: the text of `TaskFailed`, or the type and the text of other exceptions."""
    try:
        text = str(error)
    except Exception:
        text = "its text cannot be read"
    if isinstance(error, asyncio.CancelledError):
        text = text or "cancelled"
    elif isinstance(error, BaseException) and not isinstance(error, TaskFailed):
        name = type(error).__qualname__
        text = f"{name}: {text}" if text else name
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")


def _is_async(handler: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))


def _arity(name: str, handler: Callable[..., Any]) -> int:
    """Returns how many of payload and context a function takes.

    A second parameter with a default counts only if it is named `ctx` or `context`.
    """
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise ConfigError(f"task {name}: a function with yield cannot be a task: its body would not run")
    try:
        parameters = inspect.signature(handler).parameters.values()
    except ValueError:  # some builtins have no signature
        return 1
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    if len(required) > 2 or any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        raise ConfigError(f"task {name}: must take (), (payload) or (payload, ctx), not {inspect.signature(handler)}")
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 2
    if len(positional) > 1 and positional[1].name in ("ctx", "context"):
        return 2
    return max(len(required), min(1, len(positional)))
