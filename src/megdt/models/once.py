"""What is made when it is first asked for, and once however many threads ask."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar

Value = TypeVar("Value")


class once(cached_property[Value]):  # noqa: N801
    """A cached_property behind its owner's `_lock`, an RLock: since Python 3.12 it has none of its own."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """The value, made now or before."""
        if instance is None:
            return self
        with instance._lock:
            if self.attrname is not None and self.attrname in vars(instance):
                return vars(instance)[self.attrname]
            return super().__get__(instance, owner)
