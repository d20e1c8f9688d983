#pragma once

#include <charconv>
#include <cmath>
#include <string>

#include "ofcv/error.hpp"

namespace ofcv {

namespace detail {

/// A finite number as Python writes it: the shortest digits that read back, e.g. `3.0` or `1e-07`.
inline std::string number_text(double value) {
  const double magnitude = std::abs(value);
  const bool is_plain = magnitude == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  char digits[32];
  const auto end =
      std::to_chars(digits, digits + sizeof(digits), value,
                    is_plain ? std::chars_format::fixed : std::chars_format::scientific)
          .ptr;
  const std::string text(digits, end);
  return is_plain && text.find('.') == text.npos ? text + ".0" : text;
}

/// Rows of three numbers as Python's list of lists.
inline std::string rows_text(const double (&rows)[3][3]) {
  std::string text;
  for (const auto& row : rows) {
    text += text.empty() ? "[[" : ", [";
    for (const double& value : row) text += (&value == row ? "" : ", ") + number_text(value);
    text += "]";
  }
  return text + "]";
}

inline bool has_positive_diagonal_only(const double (&box)[3][3]) {
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      if (i == j ? !(box[i][j] > 0) : box[i][j] != 0) return false;
    }
  }
  return true;
}

/// The volume over the product of the lengths, 0 where a length is. Rows are divided one after the
/// other, so that tiny or huge units neither underflow nor overflow.
inline double relative_volume(const double (&box)[3][3]) {
  double unit[3][3];
  for (int i = 0; i < 3; ++i) {
    const double length = std::hypot(box[i][0], box[i][1], box[i][2]);
    if (!(length > 0)) return 0;
    for (int j = 0; j < 3; ++j) unit[i][j] = box[i][j] / length;
  }
  const auto& [a, b, c] = unit;
  return std::abs(a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) +
                  a[2] * (b[0] * c[1] - b[1] * c[0]));
}

}  // namespace detail

/// Throws unless the nine finite values are the lattice vectors of a box, as rows: a volume above
/// 1e-6 of the product of the lengths and, where `orthorhombic`, vectors along x, y and z. Python
/// also refuses boxes too oblique for its fixed number of steps of lattice reduction. Engines keep
/// their boxes reduced, so that check is not repeated here.
template <typename T>
void require_box(const T* values, bool orthorhombic) {
  double box[3][3];
  for (int i = 0; i < 9; ++i) box[i / 3][i % 3] = static_cast<double>(values[i]);
  if (orthorhombic && !detail::has_positive_diagonal_only(box)) {
    throw Error("box", "positive lengths along x, y and z and zeros", detail::rows_text(box));
  }
  constexpr double smallest_volume = 1e-6;
  if (!(detail::relative_volume(box) > smallest_volume)) {
    throw Error("box", "linearly independent vectors", detail::rows_text(box));
  }
}

}  // namespace ofcv
