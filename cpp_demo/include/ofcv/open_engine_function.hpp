#pragma once

/// The artifact of an engine, whatever its kind. Graphs of atoms need vesin: CMake links it and
/// defines OFCV_WITH_GRAPHS with the library ofcv::graphs.

#include <memory>
#include <variant>

#include "ofcv/engine_function.hpp"
#include "ofcv/engine_variable.hpp"
#include "ofcv/error.hpp"
#include "ofcv/evaluator.hpp"
#include "ofcv/file.hpp"
#include "ofcv/graph_atoms.hpp"
#include "ofcv/metadata.hpp"

#ifdef OFCV_WITH_GRAPHS
#include "ofcv/graph_variable.hpp"
#endif

namespace ofcv {

/// Whether a file takes graphs of atoms.
inline bool takes_graphs(const Metadata& metadata) {
  return std::holds_alternative<GraphVariableDetails>(metadata.details);
}

/// Opens a file of either kind; `atoms` are for a graph.
inline std::unique_ptr<EngineFunction> open_engine_function(const File& file,
                                                            const EngineSystem& system,
                                                            const GraphAtoms& atoms = {}) {
  const Metadata metadata = read_metadata(file);
  if (!takes_graphs(metadata)) {
    if (atoms.any()) throw Error("model", "a graph_collective_variable", "a " + metadata.kind());
    return std::make_unique<EngineVariable>(file, system);
  }
#ifdef OFCV_WITH_GRAPHS
  return std::make_unique<GraphVariable>(file, system, atoms);
#else
  throw Error("model", "a collective_variable, since this was built without vesin",
              "a graph_collective_variable");
#endif
}

}  // namespace ofcv
