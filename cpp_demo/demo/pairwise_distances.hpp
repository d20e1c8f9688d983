#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "common/array.hpp"
#include "demo/xyz.hpp"
#include "ofcv/atoms.hpp"
#include "ofcv/error.hpp"
#include "ofcv/metadata.hpp"

/// What an engine does for a `sparse_chain_rule` artifact of plain pair distances: the derivatives
/// of its descriptors with respect to the positions, in the order of the artifact's index list.
/// They have no dimension, so the unit of the positions does not matter.
class PairwiseDistances {
 public:
  /// Throws unless the artifact's descriptors are pair distances without a box.
  explicit PairwiseDistances(const ofcv::Metadata& metadata) : metadata_(metadata) {
    const auto* rule = std::get_if<ofcv::SparseChainRuleDetails>(&metadata.details);
    if (rule == nullptr || !is_handled(rule->descriptors)) {
      throw ofcv::Error("--input", "a .npy file for every input",
                        "an .xyz file (only a collective_variable and a sparse_chain_rule of "
                        "pairwise_distances without a box take one)");
    }
    try {
      pairs_ = rule->descriptors->at("pairs").get<std::vector<Pair>>();
    } catch (const nlohmann::json::exception&) {
      throw malformed();
    }
    pattern_ = rule->pattern;
    atoms_ = ofcv::atoms_of(metadata, rule->n_atoms);
    require_consistent();
  }

  /// The derivatives, (n_frames, 3 * n_blocks). Where the artifact names its atoms, frames may hold
  /// more of them: the artifact's atom k is the frames' atom `metadata.atoms[k]`.
  Array wrt_positions(const xyz::Frames& frames) const {
    const bool any_frame = metadata_.atoms.has_value();
    const std::int64_t needed = std::ranges::max(atoms_) + 1;
    if (any_frame ? frames.n_atoms < needed : frames.n_atoms != needed) {
      throw ofcv::Error("positions",
                        (any_frame ? "at least " : "") + std::to_string(needed) + " atoms",
                        std::to_string(frames.n_atoms));
    }
    ofcv::require_elements(metadata_, atoms_, frames.elements);
    const std::size_t n_blocks = pattern_.atom_index.size();
    Array derivatives(ofcv::DType::float64,
                      {frames.n_frames, static_cast<std::int64_t>(3 * n_blocks)});
    double* out = derivatives.data<double>();
    for (std::int64_t frame = 0; frame < frames.n_frames; ++frame) {
      const double* positions = frames.positions.data() + frame * frames.n_atoms * 3;
      for (std::size_t block = 0; block < n_blocks; ++block, out += 3) {
        const auto [i, j] = pairs_[pattern_.descriptor_index[block]];
        const std::int64_t self = atoms_[pattern_.atom_index[block]];
        const std::int64_t other = atoms_[pattern_.atom_index[block] == i ? j : i];
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
  using Pair = std::pair<std::int64_t, std::int64_t>;

  static bool is_handled(const std::optional<ofcv::Description>& descriptors) {
    return descriptors && descriptors->value("type", nlohmann::json()) == "pairwise_distances" &&
           descriptors->value("box", nlohmann::json()).is_null();
  }

  static ofcv::Error malformed() {
    return ofcv::Error("model", "pairs, a pattern and atoms that fit together", "other metadata");
  }

  void require_consistent() const {
    const auto n_atoms = static_cast<std::int64_t>(atoms_.size());
    const auto n_pairs = static_cast<std::int64_t>(pairs_.size());
    const auto is_atom = [&](std::int64_t index) { return index >= 0 && index < n_atoms; };
    bool fits = pattern_.descriptor_index.size() == pattern_.atom_index.size();
    for (std::size_t block = 0; fits && block < pattern_.atom_index.size(); ++block) {
      const std::int64_t pair = pattern_.descriptor_index[block];
      fits = pair >= 0 && pair < n_pairs;
      if (!fits) break;
      const auto [i, j] = pairs_[pair];
      const std::int64_t atom = pattern_.atom_index[block];
      fits = is_atom(i) && is_atom(j) && (atom == i || atom == j);
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

  const ofcv::Metadata& metadata_;
  std::vector<Pair> pairs_;
  ofcv::Pattern pattern_;
  std::vector<std::int64_t> atoms_;
};
