"""mlcolvar 2.0's own networks as collective variables: reference values of its branch."""

import importlib

import pytest
import torch

import ofcv_export as ofcv
from tests import graph_networks as networks

for needed in ("mlcolvar.core.nn.graph.schnet", "mlcolvar.core.nn.graph.gvp"):
    pytest.importorskip(
        needed, reason="the networks are those of mlcolvar 2.0", exc_type=ImportError
    )

_SCHNET = {"n_bases": 8, "n_filters": 8, "n_hidden_channels": 8, "w_out_after_pool": True}
_ATTENTION = {"n_bases": 6, "n_filters": 6, "n_hidden_channels": 6, "aggr": "attention"}
# Where they are not mlcolvar's defaults.
OPTIONS = {
    "alanine_schnet": _SCHNET,
    "alanine_schnet_attention": _ATTENTION | {"pooling_operation": "sum"},
    "nacl_schnet": _SCHNET,
    "nacl_long_range_schnet": _SCHNET,
}
RTOL = 1e-12


@pytest.fixture(scope="module", params=networks.ALL)
def case(request):
    """Return a name, its reference values, and the variable of mlcolvar's network."""
    name, arrays = request.param, networks.reference(request.param)
    class_name = str(arrays["class_name"])
    home = class_name.removesuffix("Model").lower()
    kind = getattr(importlib.import_module(f"mlcolvar.core.nn.graph.{home}"), class_name)
    torch.set_default_dtype(torch.float64)
    try:
        network = kind(
            n_out=len(arrays["values_0"]),
            cutoff=float(arrays["cutoff"]),
            buffer=float(arrays["buffer"]),
            long_range_cutoff=float(arrays["long_range_cutoff"]),
            atomic_numbers=arrays["atomic_numbers"].tolist(),
            **OPTIONS.get(name, {}),
        )
    finally:
        torch.set_default_dtype(torch.float32)
    state = {
        key.removeprefix("state|"): torch.from_numpy(arrays[key])
        for key in arrays
        if key.startswith("state|")
    }
    network.load_state_dict(state)
    return name, arrays, networks.variable(name, arrays, network.eval())


def close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=RTOL, atol=RTOL * float(other.abs().max()))


def test_reference_values(case):
    _, arrays, cv = case
    module = cv.export_graph().module
    for frame in range(networks.N_FRAMES):
        graph = networks.graph(cv, arrays, frame)
        close(cv.values_and_derivatives(**graph), networks.expected(arrays, frame))
        close(module(*graph.values()), networks.expected(arrays, frame))
    for change in (networks.without_edges, networks.one_node):
        alone = change(graph)
        values, derivatives, box_derivatives = module(*alone.values())
        close([values], [cv(*alone.values()).detach()])
        assert not derivatives.any()
        assert not box_derivatives.any()


def test_networks_of_the_tests_are_mlcolvars(case):
    name, arrays, cv = case
    if name not in networks.SETTINGS:
        pytest.skip("the tests have no GVP of their own")
    own = networks.variable(name, arrays)
    graph = networks.random_graph(own, 8, periodic=True)
    close(own.values_and_derivatives(**graph), cv.values_and_derivatives(**graph))


def test_models_become_variables(case):
    _, arrays, cv = case
    cvs = pytest.importorskip("mlcolvar.cvs")
    model = cvs.RegressionCV(model=cv.network).eval()
    groups = {"system": cv.system, "environment": cv.environment, "subsystem": cv.subsystem}

    made = ofcv.from_mlcolvar(model, **groups)

    assert made.details() == cv.details()
    for frame in range(networks.N_FRAMES):
        graph = networks.graph(cv, arrays, frame)
        close(made.export_graph().module(*graph.values()), networks.expected(arrays, frame))
