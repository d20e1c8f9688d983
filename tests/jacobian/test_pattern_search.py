import torch

from ofcv_export.jacobian.pattern_search import find_pattern
from tests.builders.systems import all_pairs, dense_jacobian, frames


def contacts(cutoff):
    """Return a function with two pair contacts that are exactly zero beyond the cutoff."""

    def function(r):
        distances = torch.stack(
            [(r[:, 0] - r[:, 1]).norm(dim=1), (r[:, 1] - r[:, 2]).norm(dim=1)], 1
        )
        return torch.where(distances < cutoff, (1 - distances / cutoff) ** 2, 0.0)

    return function


def test_all_pairs():
    found = find_pattern(lambda r: all_pairs(6)(r), frames(10, 6))
    assert torch.equal(found.dependence(), all_pairs(6).pattern().dependence())


def test_pair_beyond_its_cutoff_in_every_frame_is_in_the_pattern():
    positions = frames(5, 3) * 0.1 + torch.tensor([0.0, 50.0, 100.0])[:, None]
    function = contacts(1.0)
    assert dense_jacobian(function, positions).abs().max() == 0
    expected = torch.tensor([[True, True, False], [False, True, True]])
    assert torch.equal(find_pattern(function, positions).dependence(), expected)


def test_atoms_aligned_on_an_axis():
    line = torch.zeros(4, 3, 3)
    line[:, :, 0] = torch.arange(3.0)
    found = find_pattern(lambda r: all_pairs(3)(r), line)
    assert torch.equal(found.dependence(), all_pairs(3).pattern().dependence())


def test_one_frame_and_one_atom():
    found = find_pattern(lambda r: r[:, 0, 2:], frames(1, 1))
    assert found.dependence().tolist() == [[True]]


def test_a_step_function_shows_its_dependence_though_its_gradient_is_zero():
    found = find_pattern(lambda r: ((r[:, 0] - r[:, 1]).norm(dim=1, keepdim=True) < 1).double(),
                         frames(4, 3))  # fmt: skip
    assert found.dependence().tolist() == [[True, True, False]]
