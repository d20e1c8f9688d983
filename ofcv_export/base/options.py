"""Options of a function, checked before it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def require_options(function: Callable[..., Any], options: Mapping[str, Any], of: str) -> None:
    """Raise TypeError unless a function has all the options, and all that it needs are given.

    Parameters
    ----------
    function : callable
        Its parameters that may be given by name alone or with a default are its options.
    options : mapping
        What it is about to be called with.
    of : str
        What the options belong to, for the error message.

    Examples
    --------
    >>> require_options(sorted, {"revers": True}, "sorted")
    Traceback (most recent call last):
        ...
    TypeError: revers: expected an option of sorted (key, reverse), got one that it does not have
    """
    parameters = inspect.signature(function).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    known = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY or parameter.default is not parameter.empty
    }
    for name in options:
        if name not in known and not takes_any:
            raise TypeError(
                f"{name}: expected an option of {of} ({', '.join(known) or 'none'}), "
                "got one that it does not have"
            )
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in options:
            raise TypeError(f"{name}: expected a value, which {of} needs, got none")
