"""Trained models of mlcolvar turned into collective variables.

Objects are recognised by the names of their classes and methods, without importing mlcolvar; only
reading a checkpoint imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

from torch import nn

from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.recognise import recognise
from ofcv_export.integrations.captured_descriptor import CapturedDescriptor
from ofcv_export.integrations.mlcolvar_checkpoints import load_checkpoint
from ofcv_export.integrations.mlcolvar_graphs import graph_variable, is_graph_network
from ofcv_export.integrations.plain_modules import Concatenated, class_name, plain_copy
from ofcv_export.variables.collective_variable import CollectiveVariable
from ofcv_export.variables.graph_collective_variable import GraphCollectiveVariable

_CVS = "mlcolvar.cvs."
_NORMALIZATION = "mlcolvar.core.transform.tools.normalization.Normalization"


def from_mlcolvar(
    model: nn.Module | str | PathLike[str],
    atoms: Sequence[int] | None = None,
    length_unit: str | None = None,
    allow_unpickling: bool = False,
    *,
    descriptors: object | None = None,
    elements: Sequence[str] | None = None,
    model_class: type | str | None = None,
    system: Sequence[int] | None = None,
    environment: Sequence[int] | None = None,
    subsystem: Sequence[int] | None = None,
) -> CollectiveVariable | GraphCollectiveVariable:
    """Turn a trained model of mlcolvar into a collective variable.

    Values are those of ``model.eval()``: normalisation, network, batch norm, LDA or TICA, sigmoid,
    the means of a variational autoencoder, pre- and postprocessing. The model stays as it is.

    mlcolvar's descriptor objects become analytic ones. They differ where mlcolvar 1.3.1 is wrong:
    in periodic boxes whose edges differ it shifts by half a box length, here the nearest image
    counts. A preprocessing that is not known is captured operation by operation.

    Parameters
    ----------
    model : torch.nn.Module or path-like
        Committor, DeepTDA, DeepTICA, DeepLDA, AutoEncoderCV, VariationalAutoEncoderCV,
        RegressionCV, MultiTaskCV or Generator, or the path of a Lightning checkpoint of one, which
        takes `model_class` too. A checkpoint does not hold what was set after the model was made:
        give `descriptors` for a preprocessing, and the model itself where there was a
        postprocessing.
    atoms : sequence of int, optional
        Zero-based indices of the descriptors' atoms in the engine's numbering; by default
        0, 1, ... n_atoms - 1.
    length_unit : str, optional
        Unit of positions and box that the model was trained with: by default nm, and A for one
        whose network is one of graphs, as mlcolvar's datasets of graphs have it.
    allow_unpickling : bool
        Whether a checkpoint may contain objects other than tensors and plain data. Loading them
        can run any code: only for files you trust.
    descriptors : object, optional
        What maps positions to the model's input: a `Descriptor`, a descriptor object of mlcolvar,
        or any module. It takes the place of a preprocessing that maps positions to descriptors,
        and comes before any other.
    elements : sequence of str, optional
        Chemical symbols of the atoms, in order, so that engines can check them.
    model_class : type or str, optional
        Class of the model in a checkpoint, or the name of one of mlcolvar's; of a MultiTaskCV, that
        of its main model.

    system, environment, subsystem : sequence of int, optional
        Of a model of mlcolvar 2.0 whose network is one of graphs, see `GraphCollectiveVariable`;
        it knows its elements, cutoffs and buffer itself.

    Returns
    -------
    CollectiveVariable or GraphCollectiveVariable
        In the model's dtype.

    Raises
    ------
    TypeError
        If `model` is neither a model nor a path, `descriptors` are none, or `model_class` is no
        class of a model.
    ValueError
        For a model whose evaluation is not known, one without descriptors, a preprocessing that
        cannot be captured, a file that is not a checkpoint or needs unpickling, and a `model_class`
        that is missing, unknown, or given beside a model.
    FileNotFoundError
        If there is no such checkpoint.
    ImportError
        If reading a checkpoint finds no mlcolvar.
    """
    if isinstance(model, str | PathLike):
        model = load_checkpoint(model, allow_unpickling, model_class)
    elif model_class is not None:
        raise ValueError("model_class: expected none for a model, which knows its class, got one")
    parts = _evaluated_parts(model)
    groups = {"system": system, "environment": environment, "subsystem": subsystem}
    if is_graph_network(parts[0]):
        unknown = {"descriptors": descriptors, "preprocessing": model.preprocessing}
        for name, value in unknown.items():
            if value is not None:
                raise ValueError(f"{name}: expected none for a model of graphs, got some")
        return graph_variable(parts, atoms, elements, length_unit or "A", groups)
    for name, group in groups.items():
        if group is not None:
            raise ValueError(f"{name}: expected none for a model of descriptors, got some")
    known, before = _split(model.preprocessing)
    if descriptors is not None:
        known, first = _split(descriptors)
        if known is None:
            known, first = _captured("descriptors", descriptors, atoms), []
        before = [*first, *before]
    elif known is None and before:
        known, before = _captured("preprocessing", before[0], atoms), []
    if known is None:
        raise ValueError(
            "model: expected a preprocessing that maps positions to descriptors, got none; "
            "give descriptors="
        )
    network = nn.Sequential(*(plain_copy(part) for part in [*before, *parts]))
    dtype = next(parameter.dtype for parameter in model.parameters())
    cv = CollectiveVariable(known, network.to(dtype), atoms, length_unit or "nm", elements)
    first = [*before, *parts][0]
    if class_name(type(first)) == _NORMALIZATION:
        # With them, a file is verified where the model was trained.
        mean, scale = (getattr(first, name).detach().cpu().double() for name in ("mean", "range"))
        cv.trained_on = mean.flatten(), scale.flatten()
    return cv


def _evaluated_parts(model: Any) -> list[nn.Module]:
    """Return the modules between preprocessing and value, in order."""
    names = {class_name(base) for base in type(model).__mro__}
    if _CVS + "cv.BaseCV" not in names:
        raise TypeError(
            "model: expected a model of mlcolvar or the path of its checkpoint, "
            f"got {type(model).__name__}"
        )
    parts = _PARTS.get(class_name(type(model).forward_cv))
    if parts is None or class_name(type(model).forward) != _CVS + "cv.BaseCV.forward":
        raise ValueError(
            f"model: expected the evaluation of one of mlcolvar's models, "
            f"got {type(model).__name__} with its own; make a CollectiveVariable of it"
        )
    return [part for part in (*parts(model), model.postprocessing) if part is not None]


def _split(source: Any) -> tuple[Descriptor | None, list[Any]]:
    """Return the known descriptor that a preprocessing begins with, if any, and its other parts."""
    known = None if source is None else recognise(source)
    if known is not None or source is None:
        return known, []
    if isinstance(source, nn.Sequential):
        parts = list(source)
        for end in range(len(parts) - 1, 0, -1):
            known = recognise(nn.Sequential(*parts[:end]))
            if known is not None:
                return known, parts[end:]
    return None, [source]


def _captured(name: str, source: object, atoms: Sequence[int] | None) -> Descriptor:
    """Return the descriptor that does what an unknown module does."""
    if not isinstance(source, nn.Module):
        raise TypeError(f"{name}: expected descriptors, got {type(source).__name__}")
    if atoms is not None:
        n_atoms = len(atoms)
    elif hasattr(source, "in_features"):
        n_atoms = int(source.in_features) // 3  # type: ignore[arg-type]
    else:
        raise ValueError(
            f"atoms: expected the indices of the atoms that {type(source).__name__} takes, got none"
        )
    return CapturedDescriptor(source, n_atoms, name)


# How each model evaluates itself, by the method that does it.
_PARTS: dict[str, Callable[[Any], Sequence[nn.Module | None]]] = {
    _CVS + "cv.BaseCV.forward_cv": lambda model: [getattr(model, name) for name in model.BLOCKS],
    _CVS + "unsupervised.autoencoder.AutoEncoderCV.forward_cv": lambda model: [
        model.norm_in,
        model.encoder,
    ],
    _CVS + "unsupervised.vae.VariationalAutoEncoderCV.forward_cv": lambda model: [
        model.norm_in,
        model.encoder,
        model.mean_nn,
    ],
    _CVS + "generator.generator.Generator.forward_cv": lambda model: [Concatenated(model.nn)],
}
