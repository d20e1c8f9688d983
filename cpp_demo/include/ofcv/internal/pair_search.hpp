#pragma once

#include <vesin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
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
  /// Takes the points, of which `box` (none for an open system) brings the nearest images of the
  /// origin, within 2^30 lattice vectors of it.
  void set_points(const std::vector<Vector>& positions, const std::optional<Lattice>& box) {
    box_ = box;
    const std::size_t n_points = positions.size();
    points_ = positions;
    cells_.assign(n_points, {});
    fractions_.assign(n_points, {});
    if (!box_) return;
    const Fractions fractions(*box_);
    planes_ = fractions.plane_distances();
    for (std::size_t n = 0; n < n_points; ++n) {
      fractions_[n] = fractions(positions[n]);
      for (std::size_t k = 0; k < 3; ++k) {
        const double cell = std::nearbyint(fractions_[n][k]);
        cells_[n][k] = static_cast<std::int32_t>(cell);
        fractions_[n][k] -= cell;
        points_[n] = sum(points_[n], -cell, (*box_)[k]);
      }
    }
  }

  /// The pairs of one of the first points and one of the others.
  void between(std::size_t n_first, double radius, std::vector<Pair>& found) {
    found.clear();
    radius *= 1 + rounding;
    const std::size_t n_points = points_.size();
    if (n_first * (n_points - n_first) <= most_direct_pairs || !suits_vesin(radius)) {
      begin_direct_search(radius);
      for (std::size_t i = 0; i < n_first; ++i) {
        for (std::size_t j = n_first; j < n_points; ++j) find_images(i, j, found);
      }
      return;
    }
    members_.clear();
    for (std::size_t i = 0; i < n_points; ++i) members_.push_back(static_cast<std::int32_t>(i));
    vesin_search(members_, radius, true, found);
    std::erase_if(found, [&](const Pair& pair) {
      return static_cast<std::size_t>(pair.first) >= n_first ||
             static_cast<std::size_t>(pair.second) < n_first;
    });
  }

  /// All pairs of these points, and of them with their own images, in one direction each.
  void among(const std::vector<std::int32_t>& members, double radius, std::vector<Pair>& found) {
    found.clear();
    radius *= 1 + rounding;
    if (members.size() * members.size() / 2 > most_direct_pairs && suits_vesin(radius)) {
      return vesin_search(members, radius, false, found);
    }
    begin_direct_search(radius);
    for (std::size_t m = 0; m < members.size(); ++m) {
      const auto i = static_cast<std::size_t>(members[m]);
      if (box_) find_own_images(i, found);
      for (std::size_t n = m + 1; n < members.size(); ++n) {
        find_images(i, static_cast<std::size_t>(members[n]), found);
      }
    }
  }

 private:
  /// More than the rounding of distances comes to.
  static constexpr double rounding = 1e-6;
  /// Which are faster measured than searched: vesin takes longer for fewer than some 250 points.
  static constexpr std::size_t most_direct_pairs = 32768;
  /// vesin 0.6 has 1e5 cells at most. Of more it makes larger ones, and dies of a division by zero
  /// where they are larger than the points' extent in some direction.
  static constexpr double most_cells = 5e4;

  bool suits_vesin(double radius) const {
    Vector extent = planes_;
    if (!box_) {
      for (std::size_t k = 0; k < 3; ++k) {
        const auto [low, high] =
            std::ranges::minmax(points_, {}, [&](const Vector& point) { return point[k]; });
        extent[k] = high[k] - low[k];
      }
    }
    double n_cells = 1, fewest = 1e2;
    for (const double length : extent) {
      const double cells = std::max(std::floor(length / radius), 1.0);
      n_cells *= cells;
      fewest = std::min(fewest, cells);
    }
    return n_cells <= most_cells * fewest * fewest * fewest;
  }

  void begin_direct_search(double radius) {
    squared_radius_ = radius * radius;
    is_nearest_enough_ = true;
    for (std::size_t k = 0; k < 3; ++k) {
      reach_[k] = box_ ? radius / planes_[k] + rounding : std::numeric_limits<double>::infinity();
      // With fractions of at most 1/2, the image n lattice vectors further lies at least
      // (|n| - 1/2) planes away.
      most_images_[k] = box_ ? static_cast<std::int32_t>(std::floor(reach_[k] + 0.5)) : 0;
      is_nearest_enough_ = is_nearest_enough_ && most_images_[k] == 0;
    }
  }

  void find_images(std::size_t i, std::size_t j, std::vector<Pair>& found) {
    std::array<std::int32_t, 3> cell{};
    Vector fraction{}, vector = sum(points_[j], -1, points_[i]);
    if (box_) {
      for (std::size_t k = 0; k < 3; ++k) {
        const double difference = fractions_[j][k] - fractions_[i][k];
        // The rounded difference, which is at most 1.
        cell[k] = (difference < -0.5) - (difference > 0.5);
        fraction[k] = difference + cell[k];
        if (std::abs(fraction[k]) > reach_[k] && is_nearest_enough_) return;
      }
      for (std::size_t k = 0; k < 3; ++k) vector = sum(vector, cell[k], (*box_)[k]);
    }
    if (is_nearest_enough_) {
      if (dot(vector, vector) <= squared_radius_) add(i, j, cell, found);
      return;
    }
    for_each_image(fraction, vector, [&](const std::array<std::int32_t, 3>& image) {
      add(i, j, {cell[0] + image[0], cell[1] + image[1], cell[2] + image[2]}, found);
    });
  }

  void find_own_images(std::size_t i, std::vector<Pair>& found) {
    for_each_image({}, {}, [&](const std::array<std::int32_t, 3>& image) {
      if (image > std::array<std::int32_t, 3>{}) add(i, i, image, found);
    });
  }

  /// Calls with each image of a vector that is within the radius.
  template <typename Call>
  void for_each_image(const Vector& fraction, const Vector& vector, const Call& call) const {
    const auto is_out = [&](std::size_t k, std::int32_t n) {
      return std::abs(fraction[k] + n) > reach_[k];
    };
    for (std::int32_t a = -most_images_[0]; a <= most_images_[0]; ++a) {
      if (is_out(0, a)) continue;
      for (std::int32_t b = -most_images_[1]; b <= most_images_[1]; ++b) {
        if (is_out(1, b)) continue;
        const Vector partial = sum(sum(vector, a, (*box_)[0]), b, (*box_)[1]);
        for (std::int32_t c = -most_images_[2]; c <= most_images_[2]; ++c) {
          const Vector image = sum(partial, c, (*box_)[2]);
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

  void vesin_search(const std::vector<std::int32_t>& members, double radius, bool both_directions,
                    std::vector<Pair>& found) {
    selected_.clear();
    for (const std::int32_t member : members) {
      selected_.push_back(points_[static_cast<std::size_t>(member)]);
    }
    VesinOptions options{};
    options.cutoff = radius;
    options.full = both_directions;
    options.n_threads = 1;
    options.return_shifts = true;
    const bool is_periodic = box_.has_value();
    const bool periodic[3] = {is_periodic, is_periodic, is_periodic};
    const Lattice box = box_.value_or(Lattice{});
    double vectors[3][3];
    for (int i = 0; i < 9; ++i) vectors[i / 3][i % 3] = box[i / 3][i % 3];
    const char* message = nullptr;
    const auto* points = reinterpret_cast<const double (*)[3]>(selected_.data());
    if (vesin_neighbors(points, selected_.size(), vectors, periodic, {VesinCPU, 0}, options,
                        list_.get(), &message) != 0) {
      throw Error("positions", "what vesin can search", message ? message : "an error");
    }
    for (std::size_t n = 0; n < list_->length; ++n) {
      const auto* shift = list_->shifts[n];
      add(static_cast<std::size_t>(members[list_->pairs[n][0]]),
          static_cast<std::size_t>(members[list_->pairs[n][1]]), {shift[0], shift[1], shift[2]},
          found);
    }
  }

  struct Free {
    void operator()(VesinNeighborList* list) const {
      vesin_free(list);
      delete list;
    }
  };

  std::optional<Lattice> box_;
  Vector planes_{};
  std::vector<Vector> points_, fractions_, selected_;
  std::vector<std::array<std::int32_t, 3>> cells_;  ///< of each point, taken off
  std::vector<std::int32_t> members_;
  double squared_radius_ = 0;
  Vector reach_{};  ///< of the radius, in planes
  std::array<std::int32_t, 3> most_images_{};
  bool is_nearest_enough_ = true;
  std::unique_ptr<VesinNeighborList, Free> list_{new VesinNeighborList()};
};

}  // namespace ofcv::detail
