#pragma once

#include <vesin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "ofcv/error.hpp"
#include "ofcv/internal/pairs.hpp"
#include "ofcv/lattice.hpp"

namespace ofcv::detail {

/// Fractional coordinates of a lattice.
class Fractions {
 public:
  explicit Fractions(const Lattice& box) {
    for (std::size_t k = 0; k < 3; ++k) {
      const Vector normal = cross(box[(k + 1) % 3], box[(k + 2) % 3]);
      const double volume = dot(box[k], normal);
      for (std::size_t dim = 0; dim < 3; ++dim) inverse_[k][dim] = normal[dim] / volume;
    }
  }

  Vector operator()(const Vector& vector) const {
    return {dot(vector, inverse_[0]), dot(vector, inverse_[1]), dot(vector, inverse_[2])};
  }

  /// Distances between the lattice's planes.
  Vector plane_distances() const {
    Vector distances;
    for (std::size_t k = 0; k < 3; ++k) distances[k] = 1 / std::sqrt(dot(inverse_[k], inverse_[k]));
    return distances;
  }

 private:
  Lattice inverse_{};  ///< rows: their products with a vector are its fractional coordinates
};

/// The search for pairs within a radius: by vesin's cells, or directly.
///
/// Both find every image, in any lattice, also where the radius is longer than the box. Their pairs
/// are measured afterwards, so that a pair too many does no harm; none may be missing.
class PairSearch {
 public:
  /// Takes points within 2^30 lattice vectors of the origin, in a box or an open system.
  void set_points(const std::vector<Vector>& positions, const std::optional<Lattice>& box) {
    const std::size_t n_points = positions.size();
    is_periodic_ = box.has_value();
    half_ = is_periodic_ ? 0.5 : std::numeric_limits<double>::infinity();
    box_ = box.value_or(Lattice{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}});
    const Fractions fractions(box_);
    planes_ = fractions.plane_distances();
    cells_.assign(n_points, {});
    for (std::vector<double>& values : fractions_) values.resize(n_points);
    for (std::size_t n = 0; n < n_points; ++n) {
      const Vector fraction = fractions(positions[n]);
      for (std::size_t k = 0; k < 3; ++k) {
        const double cell = is_periodic_ ? std::nearbyint(fraction[k]) : 0;
        cells_[n][k] = static_cast<std::int32_t>(cell);
        fractions_[k][n] = fraction[k] - cell;
      }
    }
  }

  /// The pairs of one of the first points and one of the others.
  void between(std::size_t n_first, double radius, std::vector<Pair>& found) {
    found.clear();
    radius *= 1 + rounding;
    const std::size_t n_points = fractions_[0].size();
    if (n_first <= most_direct_points || !suits_vesin(radius)) {
      begin_direct_search(radius);
      select(n_first, n_points);
      for (std::size_t i = 0; i < n_first; ++i) find_pairs(i, 0, found);
      return;
    }
    select(0, n_points);
    vesin_search(radius, found);
    // The first point is not after the second.
    std::erase_if(found, [&](const Pair& pair) {
      return static_cast<std::size_t>(pair.first) >= n_first ||
             static_cast<std::size_t>(pair.second) < n_first;
    });
  }

  /// All pairs of these points (ascending), and of them with their own images, in one direction
  /// each: ordered, and the first point is not after the second.
  void among(const std::vector<std::int32_t>& members, double radius, std::vector<Pair>& found) {
    found.clear();
    radius *= 1 + rounding;
    members_ = members;
    if (members.size() > most_direct_points && suits_vesin(radius)) {
      vesin_search(radius, found);
      std::ranges::sort(found, std::less<>());
      return;
    }
    begin_direct_search(radius);
    set_candidates();
    for (std::size_t m = 0; m < members.size(); ++m) {
      const auto i = static_cast<std::size_t>(members[m]);
      find_own_images(i, found);
      find_pairs(i, m + 1, found);
    }
  }

 private:
  /// More than the rounding of distances comes to.
  static constexpr double rounding = 1e-6;
  /// A search by vesin takes at least as long for a point as measuring so many others.
  static constexpr std::size_t most_direct_points = 400;
  /// vesin 0.6 has 1e5 cells at most. Of more it makes larger ones, and dies of a division by zero
  /// where they are larger than the points' extent in some direction.
  static constexpr double most_cells = 5e4;

  void select(std::size_t begin, std::size_t end) {
    members_.resize(end - begin);
    std::iota(members_.begin(), members_.end(), static_cast<std::int32_t>(begin));
    set_candidates();
  }

  bool suits_vesin(double radius) const {
    double n_cells = 1, fewest = 1e2;
    for (std::size_t k = 0; k < 3; ++k) {
      double extent = planes_[k];
      if (!is_periodic_) {
        const auto [low, high] = std::ranges::minmax(fractions_[k]);
        extent = high - low;
      }
      const double cells = std::max(std::floor(extent / radius), 1.0);
      n_cells *= cells;
      fewest = std::min(fewest, cells);
    }
    return n_cells <= most_cells * fewest * fewest * fewest;
  }

  void begin_direct_search(double radius) {
    squared_radius_ = radius * radius;
    has_one_image_ = true;
    for (std::size_t k = 0; k < 3; ++k) {
      reach_[k] = radius / planes_[k] + rounding;
      // With fractions of at most 1/2, the image n lattice vectors further lies at least
      // (|n| - 1/2) planes away.
      most_images_[k] = is_periodic_ ? static_cast<std::int32_t>(std::floor(reach_[k] + 0.5)) : 0;
      has_one_image_ = has_one_image_ && most_images_[k] == 0;
      for (std::size_t l = 0; l < 3; ++l) metric_[k][l] = (k == l ? 1 : 2) * dot(box_[k], box_[l]);
    }
  }

  /// The selected points' fractions next to each other, for loops that compilers vectorise.
  void set_candidates() {
    for (std::size_t k = 0; k < 3; ++k) {
      candidates_[k].resize(members_.size());
      for (std::size_t m = 0; m < members_.size(); ++m) {
        candidates_[k][m] = fractions_[k][static_cast<std::size_t>(members_[m])];
      }
    }
    squared_.resize(members_.size());
    near_.resize(members_.size() + 1);
  }

  /// Finds the pairs of a point and the selected ones from `begin` on.
  void find_pairs(std::size_t i, std::size_t begin, std::vector<Pair>& found) {
    const std::size_t end = members_.size();
    const double *a = candidates_[0].data(), *b = candidates_[1].data(), *c = candidates_[2].data();
    const double a_i = fractions_[0][i], b_i = fractions_[1][i], c_i = fractions_[2][i];
    if (!has_one_image_) {
      for (std::size_t m = begin; m < end; ++m) {
        find_images(i, static_cast<std::size_t>(members_[m]), {a[m] - a_i, b[m] - b_i, c[m] - c_i},
                    found);
      }
      return;
    }
    const double half = half_;
    const Lattice metric = metric_;
    double* squared = squared_.data();
    for (std::size_t m = begin; m < end; ++m) {
      const double u = nearest(a[m] - a_i, half), v = nearest(b[m] - b_i, half),
                   w = nearest(c[m] - c_i, half);
      squared[m] = (metric[0][0] * u + metric[0][1] * v + metric[0][2] * w) * u +
                   (metric[1][1] * v + metric[1][2] * w) * v + metric[2][2] * w * w;
    }
    // No branches: which points are near is hard to foresee.
    std::size_t n_near = 0;
    for (std::size_t m = begin; m < end; ++m) {
      near_[n_near] = static_cast<std::uint32_t>(m);
      n_near += squared[m] <= squared_radius_;
    }
    for (std::size_t n = 0; n < n_near; ++n) {
      const std::size_t m = near_[n];
      add(i, static_cast<std::size_t>(members_[m]),
          {cell(a[m] - a_i), cell(b[m] - b_i), cell(c[m] - c_i)}, found);
    }
  }

  /// A difference of two fractions, each of at most 1/2, without the nearest whole number.
  static double nearest(double difference, double half) {
    return difference + ((difference < -half ? 1.0 : 0.0) - (difference > half ? 1.0 : 0.0));
  }

  std::int32_t cell(double difference) const {
    return (difference < -half_) - (difference > half_);
  }

  void find_images(std::size_t i, std::size_t j, const Vector& difference,
                   std::vector<Pair>& found) {
    std::array<std::int32_t, 3> origin;
    Vector fraction;
    for (std::size_t k = 0; k < 3; ++k) {
      origin[k] = cell(difference[k]);
      fraction[k] = nearest(difference[k], half_);
    }
    for_each_image(fraction, [&](const std::array<std::int32_t, 3>& image) {
      add(i, j, {origin[0] + image[0], origin[1] + image[1], origin[2] + image[2]}, found);
    });
  }

  void find_own_images(std::size_t i, std::vector<Pair>& found) {
    if (has_one_image_) return;
    for_each_image({}, [&](const std::array<std::int32_t, 3>& image) {
      if (image > std::array<std::int32_t, 3>{}) add(i, i, image, found);
    });
  }

  /// Calls with each image of a vector that is within the radius, ascending.
  template <typename Call>
  void for_each_image(const Vector& fraction, const Call& call) const {
    const auto is_out = [&](std::size_t k, std::int32_t n) {
      return std::abs(fraction[k] + n) > reach_[k];
    };
    for (std::int32_t a = -most_images_[0]; a <= most_images_[0]; ++a) {
      if (is_out(0, a)) continue;
      const Vector row = sum({}, fraction[0] + a, box_[0]);
      for (std::int32_t b = -most_images_[1]; b <= most_images_[1]; ++b) {
        if (is_out(1, b)) continue;
        const Vector plane = sum(row, fraction[1] + b, box_[1]);
        for (std::int32_t c = -most_images_[2]; c <= most_images_[2]; ++c) {
          const Vector image = sum(plane, fraction[2] + c, box_[2]);
          if (dot(image, image) <= squared_radius_) call(std::array{a, b, c});
        }
      }
    }
  }

  /// Adds a pair whose shift is that of the points next to the origin.
  void add(std::size_t i, std::size_t j, std::array<std::int32_t, 3> shift,
           std::vector<Pair>& found) const {
    for (std::size_t k = 0; k < 3; ++k) shift[k] += cells_[i][k] - cells_[j][k];
    found.push_back({static_cast<std::int32_t>(i), static_cast<std::int32_t>(j), shift});
  }

  /// Finds the pairs among the selected points; the first is not after the second.
  void vesin_search(double radius, std::vector<Pair>& found) {
    points_.clear();
    for (const std::int32_t member : members_) {
      Vector point{};
      for (std::size_t k = 0; k < 3; ++k) {
        point = sum(point, fractions_[k][static_cast<std::size_t>(member)], box_[k]);
      }
      points_.push_back(point);
    }
    VesinOptions options{};
    options.cutoff = radius;
    options.n_threads = 1;
    options.return_shifts = true;
    const bool periodic[3] = {is_periodic_, is_periodic_, is_periodic_};
    double box[3][3];
    for (std::size_t i = 0; i < 9; ++i) box[i / 3][i % 3] = box_[i / 3][i % 3];
    const char* message = nullptr;
    const auto* points = reinterpret_cast<const double (*)[3]>(points_.data());
    if (vesin_neighbors(points, points_.size(), box, periodic, {VesinCPU, 0}, options, list_.get(),
                        &message) != 0) {
      throw Error("positions", "what vesin can search", message ? message : "an error");
    }
    for (std::size_t n = 0; n < list_->length; ++n) {
      auto [first, second] = std::pair(list_->pairs[n][0], list_->pairs[n][1]);
      std::array<std::int32_t, 3> shift;
      std::copy_n(list_->shifts[n], 3, shift.begin());
      if (first > second || (first == second && shift < std::array<std::int32_t, 3>{})) {
        std::swap(first, second);
        for (std::int32_t& crossed : shift) crossed = -crossed;
      }
      add(static_cast<std::size_t>(members_[first]), static_cast<std::size_t>(members_[second]),
          shift, found);
    }
  }

  struct Free {
    void operator()(VesinNeighborList* list) const {
      vesin_free(list);
      delete list;
    }
  };

  bool is_periodic_ = false;
  Lattice box_{};      ///< of an open system the unit vectors: its fractions are positions
  double half_ = 0.5;  ///< of an open system infinite, so that no difference is beyond
  Vector planes_{};
  std::array<std::vector<double>, 3> fractions_;    ///< of each point, nearest to the origin
  std::vector<std::array<std::int32_t, 3>> cells_;  ///< of each point, taken off

  std::vector<std::int32_t> members_;  ///< the points selected
  std::array<std::vector<double>, 3> candidates_;
  std::vector<double> squared_;
  std::vector<std::uint32_t> near_;
  std::vector<Vector> points_;

  double squared_radius_ = 0;
  Lattice metric_{};  ///< a squared length is the sum of u_k metric_kl u_l over k <= l
  Vector reach_{};    ///< of the radius, in planes
  std::array<std::int32_t, 3> most_images_{};
  bool has_one_image_ = true;
  std::unique_ptr<VesinNeighborList, Free> list_{new VesinNeighborList()};
};

}  // namespace ofcv::detail
