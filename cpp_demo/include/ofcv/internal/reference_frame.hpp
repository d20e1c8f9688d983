#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <vector>

#include "ofcv/internal/pair_search.hpp"
#include "ofcv/lattice.hpp"

namespace ofcv::detail {

/// A lower bound, at most 1, of the smallest singular value of a matrix A: by Gershgorin's theorem
/// on A A^T. It is exact for boxes whose vectors change in length only, and whatever the rotation.
inline double least_stretch(const Lattice& map_of_space) {
  double least = 1;
  for (std::size_t i = 0; i < 3; ++i) {
    double bound = dot(map_of_space[i], map_of_space[i]);
    for (std::size_t j = 0; j < 3; ++j) {
      if (i != j) bound -= std::abs(dot(map_of_space[i], map_of_space[j]));
    }
    least = std::min(least, bound);
  }
  return std::sqrt(std::max(least, 0.0));
}

/// The frame in which pairs were searched, and how long the search holds.
class ReferenceFrame {
 public:
  void set(const std::vector<Vector>& positions, const std::optional<Lattice>& box) {
    positions_ = positions;
    box_ = box;
  }

  /// Whether all pairs within a radius are among those found within radius + skin.
  ///
  /// With A = H0^-1 H, a pair's vector r0 (images included) has become r0 A + u_j - u_i, where
  /// u = x - x0 A. So it is at least sigma |r0| - 2 max |u| long, with sigma the smallest singular
  /// value of A. A pair that was not found has |r0| > radius + skin. It lies beyond the radius as
  /// long as sigma (radius + skin) - 2 max |u| >= radius, that is
  ///
  ///     2 max |u| + (1 - sigma) (radius + skin) <= skin.
  ///
  /// The room that a growing box gives (sigma > 1) is not used: then, and only then, what holds for
  /// the largest of several radii holds for the smaller ones.
  bool covers(const std::vector<Vector>& positions, const std::optional<Lattice>& box,
              double radius, double skin) const {
    if (box.has_value() != box_.has_value()) return false;
    double farthest = 0, shrinking = 0;
    if (box == box_) {
      for (std::size_t n = 0; n < positions.size(); ++n) {
        const Vector moved = sum(positions[n], -1, positions_[n]);
        farthest = std::max(farthest, dot(moved, moved));
      }
    } else {
      const Fractions fractions(*box_);
      Lattice map_of_space{};
      for (std::size_t dim = 0; dim < 3; ++dim) {
        Vector axis{};
        axis[dim] = 1;
        map_of_space[dim] = product(fractions(axis), *box);
      }
      shrinking = 1 - least_stretch(map_of_space);
      for (std::size_t n = 0; n < positions.size(); ++n) {
        const Vector moved = sum(positions[n], -1, product(positions_[n], map_of_space));
        farthest = std::max(farthest, dot(moved, moved));
      }
    }
    return 2 * std::sqrt(farthest) + shrinking * (radius + skin) <= skin;
  }

 private:
  /// A row times a matrix.
  static Vector product(const Vector& row, const Lattice& matrix) {
    Vector result{};
    for (std::size_t k = 0; k < 3; ++k) result = sum(result, row[k], matrix[k]);
    return result;
  }

  std::vector<Vector> positions_;
  std::optional<Lattice> box_;
};

}  // namespace ofcv::detail
