"""mlcolvar as the peer: its own tests with our class swapped in."""

import importlib
import subprocess
import sys

import pytest
import torch

mlcolvar = pytest.importorskip("mlcolvar", reason="mlcolvar is the peer of these tests")

from mlcolvar.core.loss.utils import smart_derivatives as peer_module  # noqa: E402
from mlcolvar.core.transform import PairwiseDistances  # noqa: E402
from mlcolvar.data import DictDataset  # noqa: E402

from ofcv_export.integrations.mlcolvar import SmartDerivatives  # noqa: E402

USERS_OF_THE_CLASS = (
    "mlcolvar.core.loss.utils.smart_derivatives",
    "mlcolvar.core.loss.committor_loss",
    "mlcolvar.core.loss.generator_loss",
    "mlcolvar.cvs.generator.generator",
    "mlcolvar.cvs.generator.utils",
)


@pytest.fixture
def swapped_in(monkeypatch):
    for name in USERS_OF_THE_CLASS:
        monkeypatch.setattr(importlib.import_module(name), "SmartDerivatives", SmartDerivatives)
    default = torch.get_default_dtype()
    yield
    torch.set_default_dtype(default)


@pytest.mark.parametrize(
    "test",
    [
        "test_smart_derivatives",
        "test_batched_smart_derivatives",
        "test_compute_descriptors_and_derivatives",
        "test_train_with_smart_derivatives",
    ],
)
def test_mlcolvars_own_smart_derivatives_tests_pass(swapped_in, test, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert peer_module.SmartDerivatives is SmartDerivatives
    getattr(peer_module, test)()


@pytest.mark.parametrize(
    ("module", "test"),
    [
        ("mlcolvar.cvs.committor.committor", "test_committor_with_derivatives"),
        ("mlcolvar.cvs.generator.generator", "test_generator"),
    ],
)
def test_mlcolvars_own_model_tests_pass(swapped_in, module, test, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    users = importlib.import_module(module)
    assert hasattr(users, test), f"{module} has no {test}"
    getattr(users, test)()


def test_class_passes_mlcolvars_isinstance_check():
    smart = SmartDerivatives(force_all_atoms=True)
    assert isinstance(smart, peer_module.SmartDerivatives) or (
        peer_module.SmartDerivatives is SmartDerivatives
    )
    assert smart.force_all_atoms


def test_dict_dataset_goes_in_and_comes_out():
    dataset = DictDataset(
        {"data": torch.randn(6, 9), "labels": torch.arange(6) % 3, "weights": torch.ones(6)}
    )
    distances = PairwiseDistances(n_atoms=3, PBC=False, cell=[1.0, 1.0, 1.0])
    out = SmartDerivatives().setup(dataset, distances, 3, separate_boundary_dataset=True)
    assert type(out) is DictDataset
    assert set(out.keys) == {"data", "labels", "weights", "ref_idx"}
    assert out["ref_idx"].tolist() == [-1, -1, 0, -1, -1, 1]
    torch.testing.assert_close(out["data"], distances(dataset["data"]))


def test_core_imports_without_mlcolvar():
    code = "import sys, ofcv_export; sys.exit(any(m.startswith('mlcolvar') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
