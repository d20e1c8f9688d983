#pragma once

#include <array>
#include <cmath>
#include <limits>

namespace ofcv {

using Vector = std::array<double, 3>;

/// Lattice vectors as rows.
using Lattice = std::array<Vector, 3>;

namespace detail {

inline double dot(const Vector& a, const Vector& b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

inline Vector cross(const Vector& a, const Vector& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

/// a + factor * b
inline Vector sum(const Vector& a, double factor, const Vector& b) {
  return {a[0] + factor * b[0], a[1] + factor * b[1], a[2] + factor * b[2]};
}

/// The Minkowski-reduced basis of a lattice: no b_k + s_i b_i + s_j b_j with s in {-1, 0, 1} is
/// shorter than b_k (P. Q. Nguyen and D. Stehle, ACM Trans. Algorithms 5, 46 (2009)).
inline Lattice reduced(Lattice basis) {
  bool is_reduced = false;
  const auto shorten = [&](Vector& vector, const Vector& candidate) {
    if (!(dot(candidate, candidate) < (1 - 1e-12) * dot(vector, vector))) return;
    vector = candidate;
    is_reduced = false;
  };
  while (!is_reduced) {
    is_reduced = true;
    for (int k = 0; k < 3; ++k) {
      Vector& b = basis[k];
      const Vector &other = basis[(k + 1) % 3], &last = basis[(k + 2) % 3];
      // A long way at once, for very oblique vectors.
      for (const Vector& c : {other, last})
        shorten(b, sum(b, -std::round(dot(b, c) / dot(c, c)), c));
      for (const double s : {-1, 0, 1}) {
        for (const double t : {-1, 0, 1}) shorten(b, sum(sum(b, s, other), t, last));
      }
    }
  }
  return basis;
}

}  // namespace detail

/// The shortest of all periodic images of a vector, exact in every lattice: in a Minkowski-reduced
/// basis it is among the 27 neighbours of the image that rounding fractional coordinates gives.
class NearestImage {
 public:
  /// The vectors must be linearly independent.
  explicit NearestImage(const Lattice& lattice) : basis_(detail::reduced(lattice)) {
    for (int k = 0; k < 3; ++k) {
      const Vector normal = detail::cross(basis_[(k + 1) % 3], basis_[(k + 2) % 3]);
      const double volume = detail::dot(basis_[k], normal);
      for (int dim = 0; dim < 3; ++dim) inverse_[k][dim] = normal[dim] / volume;
      shortest_squared_ = std::min(shortest_squared_, detail::dot(basis_[k], basis_[k]));
    }
  }

  Vector operator()(const Vector& vector) const {
    // Within half the shortest lattice vector no image is nearer.
    if (4 * detail::dot(vector, vector) < shortest_squared_) return vector;
    Vector rounded = vector;
    for (int k = 0; k < 3; ++k) {
      rounded = detail::sum(rounded, -std::round(detail::dot(vector, inverse_[k])), basis_[k]);
    }
    Vector nearest = rounded;
    for (int n = 0; n < 27; ++n) {
      Vector image = detail::sum(rounded, n % 3 - 1, basis_[0]);
      image = detail::sum(detail::sum(image, n / 3 % 3 - 1, basis_[1]), n / 9 - 1, basis_[2]);
      if (detail::dot(image, image) < detail::dot(nearest, nearest)) nearest = image;
    }
    return nearest;
  }

 private:
  Lattice basis_;
  Lattice inverse_{};  ///< rows: their products with a vector are its fractional coordinates
  double shortest_squared_ = std::numeric_limits<double>::infinity();
};

}  // namespace ofcv
