"""Public modules as PyTorch takes them: scripted, exported, and as a part of a user's module."""

import io
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import ofcv_export as ofcv
from ofcv_export.descriptors import (
    Contacts,
    Fermi,
    MultipleDescriptors,
    PairDistances,
    RuntimeBox,
    Torsions,
    all_pairs,
)
from tests.builders.systems import frames

DTYPE = torch.float64
BASIS = ofcv.BasisInfo([1, 8], ["2x0e", "1x0e+1x1o"])
N_ATOMS = 5


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=DTYPE)


def frozen(n_atoms: int, **options) -> ofcv.SmartDerivatives:
    smart = ofcv.SmartDerivatives(**options)
    smart.setup({"data": frames(6, n_atoms)}, PairDistances(all_pairs(n_atoms), n_atoms), n_atoms)
    return smart


def rescaling() -> ofcv.DimensionWiseRescaling:
    positive = numbers(2, BASIS.n_basis, seed=1).abs() + 0.1
    return ofcv.DimensionWiseRescaling(numbers(BASIS.n_basis), positive[0], positive[1])


class SumOfPowers(nn.Module):
    """A network of coefficients."""

    def forward(
        self, scaled_coeffs: Tensor, basis_function_ind: Tensor, batch: Tensor, n_molecules: int
    ) -> Tensor:
        terms = scaled_coeffs**2 + 0.1 * torch.sin(scaled_coeffs)
        return scaled_coeffs.new_zeros(n_molecules).index_add(0, batch, terms)


def functional() -> ofcv.EnergyFunctional:
    reference = ofcv.AtomicReference(numbers(BASIS.n_basis, seed=2), numbers(2, seed=3), 0.5, BASIS)
    return ofcv.EnergyFunctional(SumOfPowers(), rescaling(), reference)


def cv(box: RuntimeBox | None = None, n_outputs: int = 2) -> ofcv.CollectiveVariable:
    torch.manual_seed(0)
    distances = PairDistances(all_pairs(N_ATOMS), N_ATOMS, box)
    parts = [distances, Torsions(torch.tensor([[0, 1, 2, 3]]), N_ATOMS, ("sin", "cos"), box)]
    descriptors = MultipleDescriptors([*parts, Contacts(all_pairs(N_ATOMS), N_ATOMS, Fermi(1.0))])
    network = nn.Sequential(
        nn.Linear(descriptors.n_descriptors, 8), nn.Tanh(), nn.Linear(8, n_outputs)
    )
    return ofcv.CollectiveVariable(descriptors, network.to(DTYPE))


def chain_rule_inputs(n_atoms: int) -> tuple[Tensor, ...]:
    return numbers(3, n_atoms * (n_atoms - 1) // 2, seed=4), torch.tensor([5, 0, 5])


POSITIONS = (frames(3, N_ATOMS, seed=7),)
BOX = (3.0 * torch.eye(3, dtype=DTYPE) + 0.2 * numbers(3, 3),)
INDEX = torch.as_tensor(BASIS.basis_function_ind([8, 1, 1]))
COEFFS = (numbers(len(INDEX), seed=5), INDEX)
CENTRE = (torch.tensor([0.2, 0.3], dtype=DTYPE), torch.tensor([3.0, 4.0], dtype=DTYPE))

# Name: module, and the arguments of a call, of which the first is differentiated with respect to.
MODULES = {
    "smart derivatives": (lambda: frozen(5), chain_rule_inputs(5)),
    "smart derivatives, torch": (lambda: frozen(5, kernel="torch"), chain_rule_inputs(5)),
    "smart derivatives of 30 atoms": (lambda: frozen(30), chain_rule_inputs(30)),
    "sparse chain rule": (
        lambda: frozen(5).sparse_chain_rule(),
        (numbers(3, 10), numbers(3, 60, seed=1)),
    ),
    "rescaling": (rescaling, COEFFS),
    "rescaling of a molecule": (lambda: rescaling().for_molecule([8, 1, 1], BASIS), COEFFS[:1]),
    "functional": (functional, (*COEFFS, torch.zeros_like(INDEX))),
    "functional of a molecule": (lambda: functional().for_molecule([8, 1, 1], BASIS), COEFFS[:1]),
    "collective variable": (cv, POSITIONS),
    "periodic collective variable": (lambda: cv(RuntimeBox()), POSITIONS + BOX),
    "bias": (lambda: ofcv.Bias(cv(n_outputs=1)), POSITIONS),
    "restraint": (lambda: ofcv.HarmonicRestraint(cv(), [0.1, 0.2], 5.0), POSITIONS),
    "restraint with parameters": (
        lambda: ofcv.HarmonicRestraint(cv(RuntimeBox()), [0.1, 0.2], 5.0),
        (*POSITIONS, *BOX, *CENTRE),
    ),
    "moving restraint": (
        lambda: ofcv.MovingRestraint(
            cv(RuntimeBox("orthorhombic")), [0.0, 2.0], [[0.1, 0.2], [1.0, 2.0]], [[5.0] * 2] * 2
        ),
        (*POSITIONS, 3 * torch.eye(3, dtype=DTYPE), torch.tensor([1.2], dtype=DTYPE)),
    ),
    "Kolmogorov bias": (
        lambda: ofcv.KolmogorovBias(cv(n_outputs=1), 0.4, masses=[12.0, 1.0, 1.0, 16.0, 14.0]),
        POSITIONS,
    ),
    "Kolmogorov bias, periodic, over descriptors": (
        lambda: ofcv.KolmogorovBias(cv(RuntimeBox(), n_outputs=1), 0.4, over="descriptors"),
        POSITIONS + BOX,
    ),
}
every_module = pytest.mark.parametrize("name", list(MODULES))
# torch.export has no way through a gradient that is taken inside.
exportable = pytest.mark.parametrize("name", [name for name in MODULES if "Kolm" not in name])


class Twice(nn.Module):
    """A user's own module with one of ours in it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class Twice1(Twice):
    """With one input."""

    def forward(self, a: Tensor) -> Tensor:
        return 2 * self.inner(a)


class Twice2(Twice):
    """With two inputs."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return 2 * self.inner(a, b)


class Twice3(Twice):
    """With three inputs."""

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return 2 * self.inner(a, b, c)


class Twice4(Twice):
    """With four inputs."""

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return 2 * self.inner(a, b, c, d)


USERS_OWN = {1: Twice1, 2: Twice2, 3: Twice3, 4: Twice4}


def made(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    make, inputs = MODULES[name]
    return make(), inputs


def value_and_gradient(call, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return an output and the derivative of a weighted sum of it."""
    leaf = inputs[0].clone().requires_grad_()
    value = call(leaf, *inputs[1:])
    weights = numbers(*value.shape, seed=9)
    (gradient,) = torch.autograd.grad((value * weights).sum(), leaf)
    return value.detach(), gradient


def require_same(call, expected: tuple[Tensor, Tensor], inputs: tuple[Tensor, ...]) -> None:
    # TorchScript specialises a graph in its second call and runs the result from the third.
    for _ in range(3):
        found = value_and_gradient(call, inputs)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


@every_module
def test_scripted_and_frozen(name):
    module, inputs = made(name)
    expected = value_and_gradient(module, inputs)
    scripted = torch.jit.script(module.eval())
    require_same(scripted, expected, inputs)
    require_same(torch.jit.freeze(scripted), expected, inputs)
    require_same(module, expected, inputs)


@every_module
def test_part_of_a_scripted_module(name):
    module, inputs = made(name)
    value, gradient = value_and_gradient(module, inputs)
    own = USERS_OWN[len(inputs)](module)
    scripted = torch.jit.script(own.eval())
    require_same(scripted, (2 * value, 2 * gradient), inputs)
    require_same(own, (2 * value, 2 * gradient), inputs)


@exportable
def test_exported_by_torch(name):
    module, inputs = made(name)
    value, _ = value_and_gradient(module, inputs)
    program = torch.export.export(module.eval(), inputs)
    torch.testing.assert_close(program.module()(*inputs), value, rtol=1e-11, atol=1e-12)
    own = torch.export.export(USERS_OWN[len(inputs)](module).eval(), inputs)
    torch.testing.assert_close(own.module()(*inputs), 2 * value, rtol=1e-11, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
@exportable
def test_exported_to_onnx_by_torch(name, tmp_path):
    module, inputs = made(name)
    with torch.no_grad():
        value = module(*inputs)
    torch.onnx.export(module.eval(), inputs, tmp_path / "m.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    names = [entry.name for entry in session.get_inputs()]
    given = dict(zip(names, (tensor.numpy() for tensor in inputs), strict=False))
    (found,) = session.run(None, given)
    # PyTorch's exporter writes plain numbers as float32.
    np.testing.assert_allclose(found, value.numpy(), rtol=1e-6, atol=1e-7)


def test_a_gradient_inside_is_left_to_our_own_export():
    module, inputs = made("Kolmogorov bias")
    with pytest.raises(ValueError, match="module: expected one that differentiates nothing inside"):
        torch.export.export(module.eval(), inputs)


def test_saved_ones_load_in_plain_libtorch(tmp_path):
    """In a process that has never heard of this package."""
    expected = {}
    for number, name in enumerate(MODULES):
        module, inputs = made(name)
        value, gradient = value_and_gradient(module, inputs)
        expected[number] = (inputs, numbers(*value.shape, seed=9), value, gradient)
        torch.jit.save(torch.jit.script(module.eval()), tmp_path / f"{number}.pt")
    torch.save(expected, tmp_path / "expected.pt")
    program = """
import sys, torch
for number, (inputs, weights, value, gradient) in torch.load("expected.pt").items():
    module, leaf = torch.jit.load(f"{number}.pt"), inputs[0].clone().requires_grad_()
    found = module(leaf, *inputs[1:])
    (slope,) = torch.autograd.grad((found * weights).sum(), leaf)
    torch.testing.assert_close(found.detach(), value, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(slope, gradient, rtol=1e-11, atol=1e-12)
assert "ofcv_export" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_scripted_modules_keep_their_state_dict():
    """Buffers keep their names in a script, so that weights can be loaded again."""
    module = rescaling()
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, module.state_dict()[name])


def test_scripted_core_refuses_frames_that_do_not_exist():
    scripted = torch.jit.script(frozen(5))
    for frame in (-1, 6):
        with pytest.raises(RuntimeError, match="index out of range"):
            scripted(numbers(1, 10), torch.tensor([frame]))


def test_a_subclass_with_a_forward_of_its_own_is_refused():
    message = "Doubled: expected the forward of CollectiveVariable, got one of its own"
    with pytest.raises(TypeError, match=message):

        class Doubled(ofcv.CollectiveVariable):
            def forward(self, positions, box=None):
                return 2 * super().forward(positions, box)

    with pytest.raises(TypeError, match=message):
        # The forward of another base class, which comes first.
        type("Doubled", (Twice1, ofcv.CollectiveVariable), {})


def test_a_subclass_of_other_values_has_them_in_its_biases():
    class Labelled(ofcv.CollectiveVariable):
        label = "a"

    class Double(nn.Module):
        def forward(self, descriptors):
            return 2 * descriptors

    distance = Labelled(PairDistances(torch.tensor([[0, 1]]), 2), Double())
    positions = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]]])
    assert ofcv.Bias(distance)(positions).item() == 3.0
    assert ofcv.HarmonicRestraint(distance, 3.0, 2.0)(positions).item() == 0.0
