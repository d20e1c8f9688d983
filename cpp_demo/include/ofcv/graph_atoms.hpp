#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ofcv/atoms.hpp"

namespace ofcv {

/// Which atoms of an engine a graph has, where they are others than the file says; zero-based.
struct GraphAtoms {
  using Atoms = std::vector<std::int64_t>;
  std::optional<Atoms> system = std::nullopt;
  std::optional<Atoms> environment = std::nullopt;
  std::optional<Atoms> subsystem = std::nullopt;
  Elements elements = std::nullopt;  ///< chemical symbols of the system, then of the environment

  bool any() const { return system || environment || subsystem || elements; }
};

}  // namespace ofcv
