#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "ofcv/error.hpp"

namespace ofcv {

using Unit = std::pair<std::string_view, double>;

/// In nm; CODATA 2018 for the bohr. The same as in Python's base/units.py.
inline constexpr std::array<Unit, 4> lengths = {
    {{"nm", 1.0}, {"A", 0.1}, {"angstrom", 0.1}, {"bohr", 0.0529177210903}}};

/// In kJ/mol; CODATA 2018 for the electronvolt, the hartree and the Avogadro constant.
inline constexpr std::array<Unit, 4> energies = {{{"kJ/mol", 1.0},
                                                  {"kcal/mol", 4.184},
                                                  {"eV", 96.48533212331002},
                                                  {"Hartree", 2625.4996394798254}}};

namespace detail {

inline std::string names(std::span<const Unit> units) {
  std::string text;
  for (const auto& [name, size] : units) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

inline double size(const char* argument, std::span<const Unit> units, std::string_view name) {
  const auto found = std::ranges::find(units, name, &Unit::first);
  if (found != units.end()) return found->second;
  throw Error(argument, names(units), name.empty() ? "none" : std::string(name));
}

}  // namespace detail

inline double length_in_nm(std::string_view unit) {
  return detail::size("length_unit", lengths, unit);
}

inline double energy_in_kj_per_mol(std::string_view unit) {
  return detail::size("energy_unit", energies, unit);
}

inline bool is_energy_unit(std::string_view unit) {
  return std::ranges::find(energies, unit, &Unit::first) != energies.end();
}

}  // namespace ofcv
