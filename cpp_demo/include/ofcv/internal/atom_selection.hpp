#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ofcv/error.hpp"
#include "ofcv/validation.hpp"

namespace ofcv::detail {

using Atoms = std::vector<std::int64_t>;

/// Which atoms are the system, its environment, and the subsystem of the edges of long range.
struct AtomSelection {
  Atoms atoms;                          ///< the system as given, then the environment, ascending
  std::size_t n_system = 0;             ///< how many of them are the system
  std::vector<std::int32_t> subsystem;  ///< places in `atoms`, ascending
};

/// Throws unless the atoms are distinct and there.
inline void require_atoms(const std::string& name, const Atoms& atoms, std::int64_t n_atoms) {
  require_in_range(name, atoms.data(), static_cast<std::int64_t>(atoms.size()), 0, n_atoms);
  Atoms sorted = atoms;
  std::ranges::sort(sorted);
  const auto twice = std::ranges::adjacent_find(sorted);
  if (twice == sorted.end()) return;
  throw Error(name, "distinct indices", std::to_string(*twice) + " more than once");
}

inline void require_some(const std::string& name, const Atoms& atoms) {
  if (atoms.empty()) throw Error(name, "at least one atom", "none");
}

inline AtomSelection select_atoms(std::int64_t n_atoms, const std::optional<Atoms>& system,
                                  const std::optional<Atoms>& environment,
                                  const std::optional<Atoms>& subsystem) {
  if (n_atoms < 1) throw Error("n_atoms", "a positive integer", std::to_string(n_atoms));
  enum Kind : char { other, of_system, of_environment };
  const auto place = [](std::int64_t atom) { return static_cast<std::size_t>(atom); };

  Atoms around = environment.value_or(Atoms());
  require_atoms("environment", around, n_atoms);
  std::ranges::sort(around);
  std::vector<Kind> kinds(place(n_atoms), other);
  AtomSelection selection;
  if (system) {
    require_atoms("system", *system, n_atoms);
    selection.atoms = *system;
  } else {
    for (const std::int64_t atom : around) kinds[place(atom)] = of_environment;
    for (std::int64_t atom = 0; atom < n_atoms; ++atom) {
      if (kinds[place(atom)] == other) selection.atoms.push_back(atom);
    }
  }
  require_some("system", selection.atoms);
  for (const std::int64_t atom : selection.atoms) kinds[place(atom)] = of_system;
  for (const std::int64_t atom : around) {
    if (kinds[place(atom)] != of_system) continue;
    throw Error("environment", "atoms that are not in system", std::to_string(atom));
  }
  selection.n_system = selection.atoms.size();
  selection.atoms.insert(selection.atoms.end(), around.begin(), around.end());

  if (!subsystem) return selection;
  require_atoms("subsystem", *subsystem, n_atoms);
  require_some("subsystem", *subsystem);
  for (const std::int64_t atom : *subsystem) {
    if (kinds[place(atom)] == of_system) continue;
    throw Error("subsystem", "atoms of system", std::to_string(atom));
  }
  const std::size_t n_system = selection.n_system;
  for (std::size_t row = 0; row < n_system; ++row) {
    if (std::ranges::find(*subsystem, selection.atoms[row]) == subsystem->end()) continue;
    selection.subsystem.push_back(static_cast<std::int32_t>(row));
  }
  return selection;
}

}  // namespace ofcv::detail
