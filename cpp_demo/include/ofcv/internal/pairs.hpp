#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <tuple>
#include <vector>

#include "ofcv/lattice.hpp"

namespace ofcv::detail {

/// Two atoms, and the lattice vectors crossed from the first to the second.
struct Pair {
  std::int32_t first, second;
  std::array<std::int32_t, 3> shift;
};

/// Pairs as found in one frame, measured in others.
class MeasuredPairs {
 public:
  void set(const std::vector<Pair>& pairs) {
    pairs_ = pairs;
    shifts_.clear();
    shift_of_.resize(pairs_.size());
    for (std::size_t n = 0; n < pairs_.size(); ++n) shift_of_[n] = number_of(pairs_[n].shift);
    vectors_.resize(shifts_.size());
    within_.resize(pairs_.size());
  }

  const std::vector<Pair>& pairs() const { return pairs_; }

  /// Which pairs are no farther apart than a radius, 1 or 0 each.
  ///
  /// The bits of a distance do not depend on which of the atoms comes first.
  const std::vector<std::uint8_t>& within(double radius, const std::vector<Vector>& positions,
                                          const Lattice& box) {
    for (std::size_t n = 0; n < shifts_.size(); ++n) {
      for (std::size_t dim = 0; dim < 3; ++dim) {
        vectors_[n][dim] = (shifts_[n][0] * box[0][dim] + shifts_[n][1] * box[1][dim]) +
                           shifts_[n][2] * box[2][dim];
      }
    }
    const double squared_radius = radius * radius;
    const Vector* x = positions.data();
    const Vector* vectors = vectors_.data();
    const std::int32_t* shift_of = shift_of_.data();
    std::uint8_t* within = within_.data();
    const std::size_t n_pairs = pairs_.size();
    for (std::size_t n = 0; n < n_pairs; ++n) {
      const Vector& first = x[pairs_[n].first];
      const Vector& second = x[pairs_[n].second];
      const Vector& shift = vectors[shift_of[n]];
      const double dx = (second[0] - first[0]) + shift[0];
      const double dy = (second[1] - first[1]) + shift[1];
      const double dz = (second[2] - first[2]) + shift[2];
      within[n] = (dx * dx + dy * dy) + dz * dz <= squared_radius;
    }
    return within_;
  }

 private:
  /// The number of a shift in the table. Atoms that an engine leaves in any image may have as many
  /// shifts as there are pairs, so only the last ones are compared.
  std::int32_t number_of(const std::array<std::int32_t, 3>& shift) {
    constexpr std::size_t most_compared = 32;
    const std::size_t first = shifts_.size() - std::min(shifts_.size(), most_compared);
    for (std::size_t n = shifts_.size(); n > first; --n) {
      if (shifts_[n - 1] == shift) return static_cast<std::int32_t>(n - 1);
    }
    shifts_.push_back(shift);
    return static_cast<std::int32_t>(shifts_.size() - 1);
  }

  std::vector<Pair> pairs_;
  std::vector<std::array<std::int32_t, 3>> shifts_;
  std::vector<std::int32_t> shift_of_;
  std::vector<Vector> vectors_;
  std::vector<std::uint8_t> within_;
};

/// Both directions of pairs, ordered by sender, receiver and shift.
class DirectedPairs {
 public:
  /// `n_atoms` is more than every index in the pairs.
  void set(const std::vector<Pair>& pairs, std::size_t n_atoms) {
    const std::size_t n_pairs = pairs.size();
    unordered_.resize(2 * n_pairs);
    for (std::size_t n = 0; n < n_pairs; ++n) {
      const Pair& pair = pairs[n];
      unordered_[n] = pair;
      unordered_[n_pairs + n] = {
          pair.second, pair.first, {-pair.shift[0], -pair.shift[1], -pair.shift[2]}};
    }
    order_.resize(2 * n_pairs);
    std::iota(order_.begin(), order_.end(), 0);
    sort_by(&Pair::second, n_atoms);
    sort_by(&Pair::first, n_atoms);
    sort_images();

    pairs_.resize(2 * n_pairs);
    origin_.resize(2 * n_pairs);
    for (std::size_t n = 0; n < 2 * n_pairs; ++n) {
      pairs_[n] = unordered_[order_[n]];
      origin_[n] = static_cast<std::uint32_t>(order_[n] % n_pairs);
    }
    chosen_.resize(2 * n_pairs + 1);
  }

  std::size_t size() const { return pairs_.size(); }
  const Pair& operator[](std::size_t n) const { return pairs_[n]; }

  /// Chooses both directions of the pairs with a 1; returns how many those are.
  std::size_t choose(const std::vector<std::uint8_t>& mask) {
    std::size_t n_chosen = 0;
    // No branches: which pairs are near is hard to foresee.
    for (std::size_t n = 0; n < origin_.size(); ++n) {
      chosen_[n_chosen] = static_cast<std::uint32_t>(n);
      n_chosen += mask[origin_[n]];
    }
    return n_chosen;
  }

  const Pair& chosen(std::size_t n) const { return pairs_[chosen_[n]]; }

 private:
  /// One pass of a radix sort.
  void sort_by(std::int32_t Pair::* key, std::size_t n_atoms) {
    starts_.assign(n_atoms + 1, 0);
    for (const Pair& pair : unordered_) ++starts_[static_cast<std::size_t>(pair.*key) + 1];
    std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
    sorted_.resize(order_.size());
    for (const std::uint32_t n : order_) sorted_[starts_[unordered_[n].*key]++] = n;
    order_.swap(sorted_);
  }

  /// Orders what has the same atoms.
  void sort_images() {
    const auto atoms = [&](std::size_t n) {
      const Pair& pair = unordered_[order_[n]];
      return std::tuple(pair.first, pair.second);
    };
    for (std::size_t begin = 0, end = 0; begin < order_.size(); begin = end) {
      for (end = begin + 1; end < order_.size() && atoms(end) == atoms(begin);) ++end;
      if (end - begin == 1) continue;
      std::sort(order_.begin() + static_cast<std::ptrdiff_t>(begin),
                order_.begin() + static_cast<std::ptrdiff_t>(end),
                [&](std::uint32_t a, std::uint32_t b) {
                  return unordered_[a].shift < unordered_[b].shift;
                });
    }
  }

  std::vector<Pair> pairs_, unordered_;
  std::vector<std::uint32_t> origin_, chosen_, order_, sorted_, starts_;
};

}  // namespace ofcv::detail
