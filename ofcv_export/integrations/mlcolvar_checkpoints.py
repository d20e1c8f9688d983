"""Lightning checkpoints of mlcolvar's models, read without running what they contain."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ofcv_export.base.files import require_file

# Parts of a model that take no part in its evaluation, or come back in another way.
_NOT_EVALUATED = ("loss_fn.", "auxiliary_loss_fns.", "preprocessing.")


def load_checkpoint(
    path: str | PathLike[str],
    allow_unpickling: bool = False,
    model_class: Any = None,
) -> nn.Module:
    """Return the model of a Lightning checkpoint.

    The file names no class, and a subclass that evaluates itself in its own way leaves the same
    file as its base: the caller has to know. A MultiTaskCV is loaded as its main model, which gives
    the same values.

    Parameters
    ----------
    path : path-like
        The checkpoint.
    allow_unpickling : bool
        Whether to load objects other than tensors and plain data, such as a preprocessing given
        to the model's constructor. Loading them can run any code: only for files you trust.
    model_class : type or str
        Class of the model, or the name of one of mlcolvar's.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a checkpoint of a known model, or needs unpickling, or no class is given.
    """
    target = require_file("model", path)
    content = _read(target, allow_unpickling)
    parameters, weights = content.get("hyper_parameters"), content.get("state_dict")
    if not (isinstance(parameters, Mapping) and isinstance(weights, Mapping)):
        raise _foreign(target, "no hyper-parameters or no weights in it")
    model_class = _checked_class(target, parameters, model_class)
    with torch.random.fork_rng(devices=[]):
        try:
            model: nn.Module = model_class(**parameters)
            found = model.load_state_dict(weights, strict=False, assign=True)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise _foreign(target, f"no {model_class.__name__}: {reason}") from error
    for fault, keys in (("lacks", found.missing_keys), ("adds", found.unexpected_keys)):
        wrong = [key for key in keys if not key.startswith(_NOT_EVALUATED)]
        if wrong:
            raise _foreign(
                target,
                f"it {fault} {', '.join(wrong)}; a checkpoint does not hold modules that were set "
                "after the model was made: give the model itself",
            )
    return model


def _read(path: Path, allow_unpickling: bool) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=not allow_unpickling)
    except Exception as error:  # damaged files fail in many ways, unpickled objects in any
        unsafe = [] if allow_unpickling else _unsafe_names(path)
        if unsafe:
            raise ValueError(
                f"model: expected a checkpoint of tensors and plain data, got {', '.join(unsafe)} "
                f"in {str(path)!r}, and loading such objects can run any code; "
                "allow_unpickling=True does it, for files you trust"
            ) from error
        raise _foreign(path, "it cannot be read") from error
    if not isinstance(content, Mapping):
        raise _foreign(path, f"a {type(content).__name__} in it")
    return content


def _unsafe_names(path: Path) -> list[str]:
    """Return the classes and functions that a checkpoint asks for, without importing them."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # not a checkpoint at all
        return []


def _checked_class(path: Path, parameters: Mapping[str, Any], given: Any) -> Any:
    """Return the class that the caller names."""
    from mlcolvar import cvs

    if given is None:
        likely = _class_of(path, parameters).__name__
        raise ValueError(
            "model_class: expected the class of the trained model, which no checkpoint names, "
            f"got none; {likely} has these hyper-parameters"
        )
    if isinstance(given, str):
        known = sorted({*cvs.__all__} - {"BaseCV"} | {"VariationalAutoEncoderCV"})
        if given not in known:
            raise ValueError(f"model_class: expected {', '.join(known)}, got {given!r}")
        return getattr(cvs, given)
    if not (isinstance(given, type) and issubclass(given, cvs.BaseCV)):
        got = given.__name__ if isinstance(given, type) else repr(given)
        raise TypeError(f"model_class: expected a class of a model of mlcolvar, got {got}")
    return given


def _class_of(path: Path, parameters: Mapping[str, Any]) -> Any:
    """Return the class whose constructor takes these hyper-parameters."""
    from mlcolvar import cvs

    given = set(parameters) - {"preprocessing", "postprocessing"}
    surplus: dict[Any, int] = {}
    for name in set(cvs.__all__) - {"BaseCV"} | {"VariationalAutoEncoderCV"}:
        taken = inspect.signature(getattr(cvs, name)).parameters.values()
        named = {entry.name: entry for entry in taken if entry.kind is not entry.VAR_KEYWORD}
        needed = {key for key, entry in named.items() if entry.default is entry.empty}
        if needed <= given <= set(named):
            surplus[getattr(cvs, name)] = len(set(named) - given)
    if not surplus:
        names = ", ".join(sorted(given)) or "none"
        raise _foreign(path, f"no model of mlcolvar has the hyper-parameters {names}")
    return min(surplus, key=surplus.__getitem__)


def _foreign(path: Path, why: str) -> ValueError:
    return ValueError(
        f"model: expected a Lightning checkpoint of an mlcolvar model, got {str(path)!r} ({why})"
    )
