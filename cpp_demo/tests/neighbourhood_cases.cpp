// Finds the graphs of frames, one JSON document a line. Usage: neighbourhood_cases FILE. A line
// holds `settings` and `frames`, each of them positions and a box (or null). Prints a line for
// each: what was found in each frame (an error's message where it is refused) and the number of
// searches, or the error where the settings are refused.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ofcv/neighbourhood.hpp"
#include "tests/documents.hpp"

namespace {

using documents::entry;
using nlohmann::json;

ofcv::NeighbourhoodSettings parse(const json& settings) {
  using Atoms = std::vector<std::int64_t>;
  ofcv::NeighbourhoodSettings parsed;
  parsed.cutoff = settings["cutoff"];
  parsed.n_atoms = settings["n_atoms"];
  parsed.system = entry<Atoms>(settings, "system");
  parsed.environment = entry<Atoms>(settings, "environment");
  parsed.buffer = entry<double>(settings, "buffer").value_or(0);
  parsed.long_range_cutoff = entry<double>(settings, "long_range_cutoff");
  parsed.subsystem = entry<Atoms>(settings, "subsystem");
  parsed.skin = entry<double>(settings, "skin").value_or(0);
  return parsed;
}

// JSON has no infinity and no NaN: they come as text.
std::vector<double> numbers(const json& values) {
  std::vector<double> parsed;
  for (const json& value : values) {
    parsed.push_back(value.is_string() ? std::stod(value.get<std::string>()) : value.get<double>());
  }
  return parsed;
}

json found(ofcv::Neighbourhood& search, const json& frame) {
  const std::vector<double> positions = numbers(frame["positions"]), box = numbers(frame["box"]);
  const auto n_atoms = static_cast<std::int64_t>(positions.size() / 3);
  const ofcv::AtomGraph& graph =
      search.find(positions.data(), n_atoms, box.empty() ? nullptr : box.data());
  return {{"nodes", graph.nodes},
          {"edge_index", graph.edge_index},
          {"cell_shifts", graph.cell_shifts},
          {"system_mask", graph.system_mask},
          {"long_range_mask", graph.long_range_mask}};
}

json run(const json& document) {
  ofcv::Neighbourhood search(parse(document["settings"]));
  json graphs = json::array();
  for (const json& frame : document["frames"]) {
    graphs.push_back(documents::answer([&] { return found(search, frame); }));
  }
  return {{"graphs", graphs}, {"rebuilds", search.rebuilds()}};
}

}  // namespace

int main(int argc, char** argv) { return documents::answer_all(argc, argv, run); }
