#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <tuple>
#include <vector>

#include "ofcv/lattice.hpp"

namespace ofcv::detail {

/// Two atoms, and the lattice vectors crossed from the first to the second.
struct Pair {
  std::int32_t first, second;
  std::array<std::int32_t, 3> shift;
};

/// By first atom, second atom and shift.
inline bool operator<(const Pair& a, const Pair& b) {
  return std::tie(a.first, a.second, a.shift) < std::tie(b.first, b.second, b.shift);
}

/// Pairs as found in one frame, measured in others.
class MeasuredPairs {
 public:
  void set(const std::vector<Pair>& pairs) {
    pairs_ = pairs;
    vectors_.assign(pairs.size(), {});
    within_.resize(pairs.size());
    box_ = {};
  }

  const std::vector<Pair>& pairs() const { return pairs_; }

  /// Which pairs are no farther apart than a radius, and of atoms with a 1: 1 or 0 each.
  ///
  /// The bits of a distance do not depend on which of the atoms comes first.
  const std::vector<std::uint8_t>& within(double radius, const std::vector<Vector>& positions,
                                          const Lattice& box,
                                          const std::vector<std::uint8_t>& is_member) {
    if (box != box_) set_vectors(box);
    const double squared_radius = radius * radius;
    // Bytes may be any object's, so compilers would look the members up again after each.
    const std::size_t n_pairs = pairs_.size();
    const Pair* pairs = pairs_.data();
    const Vector *x = positions.data(), *shifts = vectors_.data();
    const std::uint8_t* member = is_member.data();
    std::uint8_t* within = within_.data();
    for (std::size_t n = 0; n < n_pairs; ++n) {
      const Vector& first = x[pairs[n].first];
      const Vector& second = x[pairs[n].second];
      const Vector& shift = shifts[n];
      const double dx = (second[0] - first[0]) + shift[0];
      const double dy = (second[1] - first[1]) + shift[1];
      const double dz = (second[2] - first[2]) + shift[2];
      const bool is_near = (dx * dx + dy * dy) + dz * dz <= squared_radius;
      within[n] = member[pairs[n].first] & member[pairs[n].second] & std::uint8_t{is_near};
    }
    return within_;
  }

 private:
  void set_vectors(const Lattice& box) {
    for (std::size_t n = 0; n < pairs_.size(); ++n) {
      const auto& shift = pairs_[n].shift;
      for (std::size_t dim = 0; dim < 3; ++dim) {
        vectors_[n][dim] =
            (shift[0] * box[0][dim] + shift[1] * box[1][dim]) + shift[2] * box[2][dim];
      }
    }
    box_ = box;
  }

  std::vector<Pair> pairs_;
  Lattice box_{};
  std::vector<Vector> vectors_;  ///< the lattice vectors crossed, in that box
  std::vector<std::uint8_t> within_;
};

/// Both directions of pairs, ordered by sender, receiver and shift.
class DirectedPairs {
 public:
  /// The pairs are ordered, and the first atom is not after the second. `n_atoms` is more than
  /// every index.
  void set(const std::vector<Pair>& pairs, std::size_t n_atoms) {
    const std::size_t n_pairs = pairs.size();
    directed_.resize(2 * n_pairs);
    next_.assign(n_atoms + 1, 0);
    for (const Pair& pair : pairs) {
      ++next_[static_cast<std::size_t>(pair.first) + 1];
      ++next_[static_cast<std::size_t>(pair.second) + 1];
    }
    std::partial_sum(next_.begin(), next_.end(), next_.begin());
    const auto add = [&](const Pair& pair, std::size_t n) {
      const std::size_t place = next_[static_cast<std::size_t>(pair.first)]++;
      directed_[place] = {pair, static_cast<std::uint32_t>(n)};
    };
    // Each atom first sends to those before it, in their order.
    for (std::size_t n = 0; n < n_pairs; ++n) {
      const auto& [first, second, shift] = pairs[n];
      add({second, first, {-shift[0], -shift[1], -shift[2]}}, n);
    }
    for (std::size_t n = 0; n < n_pairs; ++n) add(pairs[n], n);
    order_images();

    pairs_.assign(directed_.begin(), directed_.end());
    origins_.resize(2 * n_pairs);
    std::ranges::transform(directed_, origins_.begin(), &Directed::origin);
    chosen_.resize(2 * n_pairs + 1);
  }

  std::size_t size() const { return pairs_.size(); }

  const Pair* data() const { return pairs_.data(); }

  /// The numbers of both directions of the pairs with a 1, ascending, until the next call.
  std::span<const std::uint32_t> choose(const std::vector<std::uint8_t>& mask) {
    const std::size_t n_pairs = origins_.size();
    const std::uint32_t* origins = origins_.data();
    const std::uint8_t* is_chosen = mask.data();
    std::uint32_t* chosen = chosen_.data();
    std::size_t n_chosen = 0;
    // No branches: which pairs are near is hard to foresee.
    for (std::size_t n = 0; n < n_pairs; ++n) {
      chosen[n_chosen] = static_cast<std::uint32_t>(n);
      n_chosen += is_chosen[origins[n]];
    }
    return {chosen, n_chosen};
  }

 private:
  struct Directed : Pair {
    std::uint32_t origin;  ///< the pair
  };

  /// Orders by shift what has the same atoms: it was turned round.
  void order_images() {
    const auto has_same_atoms = [](const Pair& a, const Pair& b) {
      return a.first == b.first && a.second == b.second;
    };
    for (auto begin = directed_.begin(); begin != directed_.end();) {
      auto end = begin + 1;
      while (end != directed_.end() && has_same_atoms(*begin, *end)) ++end;
      if (end - begin > 1) std::sort(begin, end);
      begin = end;
    }
  }

  std::vector<Pair> pairs_;
  std::vector<std::uint32_t> origins_, chosen_, next_;
  std::vector<Directed> directed_;
};

}  // namespace ofcv::detail
