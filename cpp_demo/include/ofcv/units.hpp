#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "ofcv/error.hpp"

namespace ofcv {

using Unit = std::pair<std::string_view, double>;

/// In nm; CODATA 2018 for the bohr. The same as in the Python package's units.py.
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

inline double unit_size(const char* argument, std::span<const Unit> units, std::string_view name) {
  for (const auto& [known, size] : units) {
    if (known == name) return size;
  }
  throw Error(argument, names(units), name.empty() ? "none" : std::string(name));
}

inline double factor(const char* argument, std::span<const Unit> units, std::string_view unit,
                     std::string_view to) {
  const double from_size = unit_size(argument, units, unit);
  const double to_size = unit_size(argument, units, to);
  return unit == to ? 1.0 : from_size / to_size;
}

}  // namespace detail

/// The number by which a length in `unit` becomes one in the unit `to`.
inline double length_factor(std::string_view unit, std::string_view to) {
  return detail::factor("length_unit", lengths, unit, to);
}

/// The number by which an energy in `unit` becomes one in the unit `to`.
inline double energy_factor(std::string_view unit, std::string_view to) {
  return detail::factor("energy_unit", energies, unit, to);
}

inline bool is_energy_unit(std::string_view unit) {
  for (const auto& [name, size] : energies) {
    if (name == unit) return true;
  }
  return false;
}

}  // namespace ofcv
