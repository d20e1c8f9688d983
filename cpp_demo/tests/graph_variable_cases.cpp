// Evaluates artifacts on graphs of atoms, one JSON document a line. Usage: graph_variable_cases
// FILE. A line holds `model`, `n_atoms`, `elements` of the engine (or null), `atoms` (other ones
// than the file's, or null), `parameters`, and `frames`, each of them positions of the artifact's
// atoms and a box (or null). Prints a line for each: the artifact's atoms, what was found in each
// frame (an error's message where it is refused) and the number of searches, or the error where the
// file is refused. Lengths are in nm and energies in kJ/mol.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ofcv/graph_variable.hpp"
#include "tests/documents.hpp"

namespace {

using documents::entry;
using nlohmann::json;

json found(ofcv::GraphVariable& variable, const json& frame) {
  const auto positions = frame["positions"].get<std::vector<double>>();
  const auto box = entry<std::vector<double>>(frame, "box");
  variable.evaluate(positions.data(), box ? box->data() : nullptr);
  const auto derivatives = variable.derivatives(0);
  return {{"value", variable.value(0)},
          {"derivatives", std::vector<double>(derivatives.begin(), derivatives.end())},
          {"strain", variable.strain_derivative(0)}};
}

json run(const json& document) {
  using Atoms = std::vector<std::int64_t>;
  using Symbols = std::vector<std::string>;
  ofcv::EngineSystem system{.n_atoms = document["n_atoms"],
                            .elements = entry<Symbols>(document, "elements")};
  if (const auto parameters = entry<ofcv::Parameters>(document, "parameters")) {
    system.parameters = *parameters;
  }
  ofcv::GraphAtoms atoms;
  if (const auto given = entry<json>(document, "atoms")) {
    atoms = {entry<Atoms>(*given, "system"), entry<Atoms>(*given, "environment"),
             entry<Atoms>(*given, "subsystem"), entry<Symbols>(*given, "elements")};
  }
  ofcv::GraphVariable variable(document["model"].get<std::string>(), system, atoms);
  json frames = json::array();
  for (const json& frame : document["frames"]) {
    frames.push_back(documents::answer([&] { return found(variable, frame); }));
  }
  return {{"atoms", variable.atoms()}, {"frames", frames}, {"rebuilds", variable.rebuilds()}};
}

}  // namespace

int main(int argc, char** argv) { return documents::answer_all(argc, argv, run); }
