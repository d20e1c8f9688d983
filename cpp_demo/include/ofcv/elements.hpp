#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ofcv/error.hpp"

namespace ofcv {

/// Chemical symbols; the place is the atomic number, and 0 stands for no element.
inline constexpr std::array<std::string_view, 119> symbols_of_elements = {
    "X",  "H",  "He", "Li", "Be", "B",  "C",  "N",  "O",  "F",  "Ne", "Na", "Mg", "Al", "Si",
    "P",  "S",  "Cl", "Ar", "K",  "Ca", "Sc", "Ti", "V",  "Cr", "Mn", "Fe", "Co", "Ni", "Cu",
    "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",  "Zr", "Nb", "Mo", "Tc", "Ru",
    "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I",  "Xe", "Cs", "Ba", "La", "Ce", "Pr",
    "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W",
    "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac",
    "Th", "Pa", "U",  "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf",
    "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og"};

/// The chemical symbol of an atomic number, or the number itself where there is none.
inline std::string symbol_of(std::int64_t number) {
  const bool exists = number > 0 && number < std::ssize(symbols_of_elements);
  return exists ? std::string(symbols_of_elements[static_cast<std::size_t>(number)])
                : std::to_string(number);
}

/// The atomic number of a chemical symbol; 0 for what is none, such as a virtual site.
inline std::int64_t number_of(std::string_view symbol) {
  const auto found = std::ranges::find(symbols_of_elements, symbol);
  return found == symbols_of_elements.end() ? 0 : found - symbols_of_elements.begin();
}

/// What is said of an atom of an element that a network does not know.
inline Error unknown_element(std::span<const std::int64_t> known, const std::string& got,
                             std::int64_t atom) {
  std::string names;
  for (const std::int64_t number : known) {
    names += (names.empty() ? "" : ", ") + symbol_of(number);
  }
  return Error("elements", names, got + " as atom " + std::to_string(atom) + " (zero-based)");
}

}  // namespace ofcv
