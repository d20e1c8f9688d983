"""Modules that say what they are: the descriptions that artifacts carry."""

from operator import attrgetter
from typing import Any, ClassVar

from torch import Tensor, nn


class Described(nn.Module):
    """A module whose description lists some of its attributes.

    Attributes
    ----------
    type_name : str or None
        Its type in descriptions; None where it has none.
    facts : tuple of str
        Attributes in its description, in order. Of a dotted name the last part is the key.
    none_means_unknown : bool
        Whether None for a description says that there is none, and so none of what it is part of.
    """

    type_name: ClassVar[str | None] = None
    facts: ClassVar[tuple[str, ...]] = ()
    none_means_unknown: ClassVar[bool] = True

    def specification(self) -> dict[str, Any] | None:
        """Return the JSON-able description that an artifact's metadata carries.

        None where the module or a part, such as a switching function of the user's own, has no
        description. A subclass, which may compute what it likes, has none but its own.
        """
        if vars(type(self)).get("type_name") is None:
            return None
        description: dict[str, Any] = {"type": self.type_name}
        for fact in self.facts:
            value = attrgetter(fact)(self)
            entry = _entry(value)
            if entry is None and isinstance(value, Described) and value.none_means_unknown:
                return None
            description[fact.rpartition(".")[2]] = entry
        return description


def _entry(value: Any) -> Any:
    """Return an attribute as JSON knows it."""
    if isinstance(value, Tensor):
        return value.tolist()
    return value.specification() if hasattr(value, "specification") else value
