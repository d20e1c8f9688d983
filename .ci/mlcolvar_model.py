"""A model of mlcolvar for `.ci/mlcolvar_environment`: ``export`` it, ``compare`` its values."""

import sys

import mlcolvar
import numpy as np
import torch
from mlcolvar.core.transform import PairwiseDistances
from mlcolvar.cvs import RegressionCV

import ofcv_export as ofcv


def export() -> None:
    """Write ``cv.onnx``, ``positions.npy``, and the model's own values ``expected.npy``."""
    torch.manual_seed(0)
    model = RegressionCV([3, 8, 1]).eval()
    model.preprocessing = PairwiseDistances(n_atoms=3, PBC=False, cell=1.0, scaled_coords=False)
    positions = torch.randn(5, 3, 3)
    ofcv.export(ofcv.from_mlcolvar(model), "cv.onnx")
    np.save("positions.npy", positions.numpy())
    np.save("expected.npy", model(positions.flatten(1)).detach().numpy())


def compare() -> None:
    """Compare what the command line wrote with the model's own values."""
    np.testing.assert_allclose(np.load("values.npy"), np.load("expected.npy"), rtol=1e-5, atol=1e-6)
    print(f"mlcolvar {mlcolvar.__version__}: the same values from the command line")


if __name__ == "__main__":
    {"export": export, "compare": compare}[sys.argv[1]]()
