"""The demonstration in OpenMM fails when the molecule did not get where it was pulled."""

import numpy as np
import pytest

pytest.importorskip("openmm", reason="OpenMM is not installed")
from typer.testing import CliRunner

from export_scripts import openmm_example


@pytest.mark.parametrize("end", [-52.0, 0.0, 131.0, np.nan])
def test_a_run_that_misses_alpha_l_is_an_error(end):
    openmm_example.require_alpha_l("C++", np.array([-70.0, *[60.0] * 5]))
    with pytest.raises(ValueError, match=r"^C\+\+: expected phi between 0° and 130° .*, got "):
        openmm_example.require_alpha_l("C++", np.array([-70.0, *[end] * 5]))


def test_the_script_fails_then(monkeypatch, tmp_path):
    import typer

    for name in ("trained_cv", "moving_restraint"):
        monkeypatch.setattr(openmm_example, name, lambda *_: (None, None))
    monkeypatch.setattr(openmm_example.Molecule, "equilibrated", lambda **_: None)
    monkeypatch.setattr(openmm_example.ofcv, "export", lambda *_, **__: "exported")
    app = typer.Typer()
    app.command()(openmm_example.main)
    for end, code in ((60.0, 0), (-52.0, 1)):
        phi = np.array([-70.0, *[end] * 5])
        monkeypatch.setattr(openmm_example, "run_in_python", lambda *_, phi=phi: phi)
        result = CliRunner().invoke(app, ["--output", str(tmp_path)])
        assert result.exit_code == code
