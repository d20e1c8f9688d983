#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "ofcv/error.hpp"
#include "ofcv/metadata.hpp"

namespace ofcv {

using Elements = std::optional<std::vector<std::string>>;

/// Zero-based indices of the artifact's atoms in the engine: the first ones where it names none.
/// Throws unless there are `n_atoms`.
inline std::vector<std::int64_t> atoms_of(const Metadata& metadata, std::int64_t n_atoms) {
  std::vector<std::int64_t> atoms = metadata.atoms.value_or(std::vector<std::int64_t>());
  if (atoms.empty()) {
    atoms.resize(static_cast<std::size_t>(std::max<std::int64_t>(n_atoms, 0)));
    std::iota(atoms.begin(), atoms.end(), 0);
  }
  const bool fits = static_cast<std::int64_t>(atoms.size()) == n_atoms && n_atoms > 0 &&
                    std::ranges::min(atoms) >= 0 &&
                    (!metadata.elements || metadata.elements->size() == atoms.size());
  if (!fits) {
    throw Error("metadata", "zero-based indices of " + std::to_string(n_atoms) + " atoms",
                "others");
  }
  return atoms;
}

/// Throws unless the artifact takes positions as an engine has them.
inline void require_positions(const VariableDetails& variable) {
  if (!variable.box.fractions) return;
  throw Error("model", "an artifact that takes positions", "one that takes fractions of a box");
}

/// Throws unless the system has the artifact's elements, where both are known. `atoms` are those of
/// the artifact, `elements` those of the whole system.
inline void require_elements(const Metadata& metadata, const std::vector<std::int64_t>& atoms,
                             const Elements& elements) {
  if (!metadata.elements || !elements) return;
  for (std::size_t k = 0; k < atoms.size(); ++k) {
    const std::string& expected = metadata.elements->at(k);
    const std::string& got = elements->at(static_cast<std::size_t>(atoms[k]));
    if (got == expected) continue;
    throw Error("atoms", expected + " as atom " + std::to_string(atoms[k]) + " (zero-based)", got);
  }
}

}  // namespace ofcv
