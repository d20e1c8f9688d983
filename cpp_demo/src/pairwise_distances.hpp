#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "array.hpp"
#include "ofcv/error.hpp"
#include "ofcv/metadata.hpp"
#include "xyz.hpp"

/// What an engine does for a `sparse_chain_rule` artifact of plain pair distances: the derivatives
/// of its descriptors with respect to the positions, in the order of the artifact's index list.
/// They have no dimension, so the unit of the positions does not matter.
class PairwiseDistances {
 public:
  /// Throws unless the artifact's descriptors are pair distances without a box.
  explicit PairwiseDistances(const ofcv::Metadata& metadata) {
    if (!is_handled(metadata)) {
      throw ofcv::Error("--input", "a .npy file for every input",
                        "an .xyz file (only a collective_variable and a sparse_chain_rule of "
                        "pairwise_distances without a box take one)");
    }
    try {
      const nlohmann::json& pattern = metadata.details.at("pattern");
      pairs_ = metadata.details.at("descriptors").at("pairs").get<std::vector<Pair>>();
      descriptor_index_ = pattern.at("descriptor_index").get<std::vector<std::size_t>>();
      atom_index_ = pattern.at("atom_index").get<std::vector<std::size_t>>();
      n_atoms_ = static_cast<std::size_t>(metadata.outputs.at(0).shape.at(1).size);
    } catch (const std::exception&) {
      throw malformed();
    }
    any_frame_ = metadata.atoms.has_value();
    if (any_frame_) {
      atoms_.assign(metadata.atoms->begin(), metadata.atoms->end());
    } else {
      atoms_.resize(n_atoms_);
      std::iota(atoms_.begin(), atoms_.end(), 0);
    }
    require_consistent();
  }

  /// The derivatives, (n_frames, 3 * n_blocks). Where the artifact names its atoms, frames may hold
  /// more of them: the artifact's atom k is the frames' atom `metadata.atoms[k]`.
  Array wrt_positions(const xyz::Frames& frames) const {
    const std::size_t needed = *std::max_element(atoms_.begin(), atoms_.end()) + 1;
    const auto n_atoms = static_cast<std::size_t>(frames.n_atoms);
    if (any_frame_ ? n_atoms < needed : n_atoms != needed) {
      throw ofcv::Error("positions",
                        (any_frame_ ? "at least " : "") + std::to_string(needed) + " atoms",
                        std::to_string(n_atoms));
    }
    Array derivatives(ofcv::DType::float64,
                      {frames.n_frames, static_cast<std::int64_t>(3 * atom_index_.size())});
    double* out = derivatives.data<double>();
    for (std::int64_t frame = 0; frame < frames.n_frames; ++frame) {
      const double* positions = frames.positions.data() + frame * frames.n_atoms * 3;
      for (std::size_t block = 0; block < atom_index_.size(); ++block, out += 3) {
        const auto [i, j] = pairs_[descriptor_index_[block]];
        const std::size_t self = atoms_[atom_index_[block]];
        const std::size_t other = atoms_[atom_index_[block] == i ? j : i];
        if (!write_unit_vector(positions + 3 * self, positions + 3 * other, out)) {
          throw ofcv::Error("positions", "atoms at distinct places",
                            "atoms " + std::to_string(self) + " and " + std::to_string(other) +
                                " at one place in frame " + std::to_string(frame));
        }
      }
    }
    return derivatives;
  }

 private:
  using Pair = std::pair<std::size_t, std::size_t>;

  static bool is_handled(const ofcv::Metadata& metadata) {
    if (metadata.kind != "sparse_chain_rule" || !metadata.details.contains("descriptors")) {
      return false;
    }
    const nlohmann::json& descriptors = metadata.details["descriptors"];
    return descriptors.is_object() && descriptors.contains("type") &&
           descriptors["type"] == "pairwise_distances" &&
           (!descriptors.contains("box") || descriptors["box"].is_null());
  }

  static ofcv::Error malformed() {
    return ofcv::Error("model", "pairs, a pattern and atoms that fit together", "other metadata");
  }

  void require_consistent() const {
    bool fits =
        n_atoms_ > 0 && atoms_.size() == n_atoms_ && descriptor_index_.size() == atom_index_.size();
    for (std::size_t block = 0; fits && block < atom_index_.size(); ++block) {
      fits = descriptor_index_[block] < pairs_.size();
      if (!fits) break;
      const auto [i, j] = pairs_[descriptor_index_[block]];
      fits = i < n_atoms_ && j < n_atoms_ && (atom_index_[block] == i || atom_index_[block] == j);
    }
    if (!fits) throw malformed();
  }

  // d |a - b| / d a = (a - b) / |a - b|, which does not exist at a = b.
  static bool write_unit_vector(const double* a, const double* b, double* out) {
    const double x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
    const double distance = std::hypot(x, y, z);
    out[0] = x / distance, out[1] = y / distance, out[2] = z / distance;
    return distance > 0.0 && std::isfinite(distance);
  }

  std::vector<Pair> pairs_;
  std::vector<std::size_t> descriptor_index_;
  std::vector<std::size_t> atom_index_;
  std::vector<std::size_t> atoms_;
  std::size_t n_atoms_ = 0;
  bool any_frame_ = false;
};
