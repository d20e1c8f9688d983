#pragma once

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "ofcv/error.hpp"
#include "ofcv/lattice.hpp"

namespace ofcv {

namespace detail {

/// Rows of numbers as Python's list of lists.
inline std::string rows_text(const Lattice& rows) {
  std::string text;
  for (const char c : nlohmann::json(rows).dump()) text += c == ',' ? ", " : std::string(1, c);
  return text;
}

/// Whether the vectors lie along x, y and z but for rounding errors, which move no image by more
/// than float32 resolves.
inline bool has_positive_diagonal_only(const Lattice& box) {
  const double rounding = 1e-7 * std::max({box[0][0], box[1][1], box[2][2]});
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      if (i == j ? !(box[i][j] > 0) : !(std::abs(box[i][j]) <= rounding)) return false;
    }
  }
  return true;
}

/// The volume over the product of the lengths, 0 where a length is. Rows are divided one after the
/// other, so that tiny or huge units neither underflow nor overflow.
inline double relative_volume(Lattice box) {
  for (Vector& row : box) {
    const double length = std::hypot(row[0], row[1], row[2]);
    if (!(length > 0)) return 0;
    for (double& component : row) component /= length;
  }
  return std::abs(dot(box[0], cross(box[1], box[2])));
}

}  // namespace detail

/// The nine values at `values`, row by row, times `factor`.
template <typename T>
Lattice lattice_from(const T* values, double factor = 1) {
  Lattice lattice;
  for (int i = 0; i < 9; ++i) lattice[i / 3][i % 3] = factor * static_cast<double>(values[i]);
  return lattice;
}

/// Throws unless the finite vectors are those of a box: a volume above 1e-6 of the product of the
/// lengths and, where `orthorhombic`, vectors along x, y and z. Python also refuses boxes too
/// oblique for its fixed number of steps of lattice reduction. Engines keep their boxes reduced, so
/// that check is not repeated here.
inline void require_box(const Lattice& box, bool orthorhombic) {
  if (orthorhombic && !detail::has_positive_diagonal_only(box)) {
    throw Error("box", "positive lengths along x, y and z and zeros", detail::rows_text(box));
  }
  constexpr double smallest_volume = 1e-6;
  if (!(detail::relative_volume(box) > smallest_volume)) {
    throw Error("box", "linearly independent vectors", detail::rows_text(box));
  }
}

/// Throws unless `box` is the artifact's own, to 1e-4 of its largest component.
inline void require_same_box(const Lattice& own, const Lattice& box) {
  double largest = 0, difference = 0;
  for (int i = 0; i < 9; ++i) {
    largest = std::max(largest, std::abs(own[i / 3][i % 3]));
    difference = std::max(difference, std::abs(own[i / 3][i % 3] - box[i / 3][i % 3]));
  }
  if (difference <= 1e-4 * largest) return;
  throw Error("box", "the artifact's own " + detail::rows_text(own), detail::rows_text(box));
}

}  // namespace ofcv
