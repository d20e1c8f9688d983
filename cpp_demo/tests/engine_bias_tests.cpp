// EngineBias on the artifacts of make_engine_cases.py. Usage: engine_bias_tests FOLDER.

#include <cmath>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "check.hpp"
#include "ofcv/engine_bias.hpp"

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t n_atoms = 8;

struct Case {
  std::string path;
  std::vector<double> positions, box, forces, strain;
  ofcv::Parameters parameters;
  double energy;

  Case(const fs::path& folder, const std::string& name) : path((folder / (name + ".pt")).string()) {
    const auto content = nlohmann::json::parse(std::ifstream(folder / (name + ".json")));
    content.at("positions").get_to(positions);
    content.at("box").get_to(box);
    content.at("forces").get_to(forces);
    content.at("strain").get_to(strain);
    content.at("parameters").get_to(parameters);
    content.at("energy").get_to(energy);
  }
};

ofcv::EngineSystem engine(const std::string& length_unit, const std::string& energy_unit,
                          bool periodic = false) {
  return {.length_unit = length_unit,
          .energy_unit = energy_unit,
          .n_atoms = n_atoms,
          .periodic = periodic};
}

std::vector<double> scaled(std::vector<double> values, double factor) {
  for (double& value : values) value *= factor;
  return values;
}

bool agree(const std::vector<double>& found, const std::vector<double>& expected,
           double tolerance) {
  double largest = 0, difference = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    difference = std::max(difference, std::abs(found[i] - expected[i]));
  }
  return found.size() == expected.size() && difference <= tolerance * largest;
}

void test_numbers(const fs::path& folder) {
  for (const std::string name : {"open", "periodic", "single", "angstrom", "moving"}) {
    const Case one(folder, name);
    const double tolerance = name == "single" ? 1e-5 : 1e-11;
    // nm and kJ/mol, then Angstrom and kcal/mol.
    for (const bool is_second : {false, true}) {
      const double length = is_second ? 10 : 1, energy = is_second ? 1 / 4.184 : 1;
      ofcv::EngineSystem system =
          engine(is_second ? "A" : "nm", is_second ? "kcal/mol" : "kJ/mol", !one.box.empty());
      system.parameters = one.parameters;
      ofcv::EngineBias bias(one.path, system);
      const std::vector<double> positions = scaled(one.positions, length);
      const std::vector<double> box = scaled(one.box, length);
      std::vector<double> forces(3 * n_atoms, 1.0), strain(9);
      const double found = bias.evaluate(positions.data(), box.empty() ? nullptr : box.data(),
                                         forces.data(), strain.data());
      for (double& force : forces) force -= 1.0;  // they are added to what is there
      CHECK(agree({found}, {energy * one.energy}, tolerance));
      CHECK(agree(forces, scaled(one.forces, energy / length), tolerance));
      CHECK(agree(strain, scaled(one.strain, energy), tolerance));
    }
  }
}

void test_parameters(const fs::path& folder) {
  const Case one(folder, "open");
  ofcv::EngineBias bias(one.path, engine("nm", "kJ/mol"));
  CHECK(bias.parameter_names() == std::vector<std::string>({"centre", "force_constant"}));
  CHECK(bias.default_values("force_constant") == std::vector<double>({50.0}));
  CHECK(bias.time_unit().empty());
  CHECK(ofcv::EngineBias((folder / "moving.pt").string(), engine("nm", "kJ/mol")).time_unit() ==
        "ps");
  bias.set_parameter("force_constant", std::vector<double>{100.0});
  std::vector<double> forces(3 * n_atoms);
  const double energy = bias.evaluate(one.positions.data(), nullptr, forces.data(), nullptr);
  CHECK(agree({energy}, {2 * one.energy}, 1e-12));
  const auto set = [&](const char* name, std::vector<double> values) {
    bias.set_parameter(name, values);
  };
  CHECK_ERROR(set("kappa", {1}), "parameters: expected centre, force_constant, got kappa");
  CHECK_ERROR(set("centre", {1, 2}), "centre: expected shape (1,), got (2,)");
}

void test_refusals(const fs::path& folder) {
  const auto open = [&](const char* name, const ofcv::EngineSystem& system) {
    ofcv::EngineBias((folder / name).string(), system);
  };
  const ofcv::EngineSystem nm = engine("nm", "kJ/mol"), box = engine("nm", "kJ/mol", true);
  ofcv::EngineSystem few = nm;
  few.n_atoms = 6;
  CHECK_ERROR(open("open.pt", few), "atoms: expected indices below the system's 6 atoms, got 6");
  CHECK_ERROR(open("open.pt", engine("pm", "kJ/mol")),
              "length_unit: expected nm, A, angstrom, bohr, got pm");
  CHECK_ERROR(open("open.pt", engine("nm", "kT")),
              "energy_unit: expected kJ/mol, kcal/mol, eV, Hartree, got kT");
  CHECK_ERROR(open("periodic.pt", nm), "box: expected a periodic system, got one without a box");
  CHECK_ERROR(open("frozen_box.pt", nm), "box: expected a periodic system, got one without a box");
  CHECK_ERROR(open("no_energy.pt", nm),
              "model: expected a bias, whose values are in kJ/mol, kcal/mol, eV, Hartree, got a "
              "collective_variable in no unit");
  CHECK_ERROR(open("five_frames.pt", nm),
              "model: expected a bias for one frame or any number, got 5");
  CHECK_ERROR(open("fractions.pt", box),
              "model: expected an artifact that takes positions, got one that takes fractions of a "
              "box");
}

void test_calls(const fs::path& folder) {
  const Case one(folder, "periodic");
  ofcv::EngineBias bias(one.path, engine("nm", "kJ/mol", true));
  std::vector<double> forces(3 * n_atoms), strain(9);
  CHECK_ERROR(bias.evaluate(one.positions.data(), nullptr, forces.data(), nullptr),
              "box: expected shape (3, 3), got none");
  std::vector<double> positions = one.positions;
  positions[3 * bias.atoms()[1] + 2] = std::numeric_limits<double>::quiet_NaN();
  CHECK_ERROR(bias.evaluate(positions.data(), one.box.data(), forces.data(), nullptr),
              "positions: expected finite values, got nan at index (0, 1, 2)");
  CHECK(forces == std::vector<double>(3 * n_atoms, 0.0));

  ofcv::EngineBias frozen((folder / "frozen_box.pt").string(), engine("nm", "kJ/mol", true));
  const double same[9] = {2, 0, 0, 0, 2.1, 0, 0, 0, 1.9}, other[9] = {2, 0, 0, 0, 2, 0, 0, 0, 2};
  frozen.evaluate(one.positions.data(), same, forces.data(), nullptr);
  CHECK_ERROR(frozen.evaluate(one.positions.data(), other, forces.data(), nullptr),
              "box: expected the artifact's own [[2.0, 0.0, 0.0], [0.0, 2.1, 0.0], [0.0, 0.0, "
              "1.9]], got [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]");
  CHECK_ERROR(frozen.evaluate(one.positions.data(), same, forces.data(), strain.data()),
              "strain: expected none for an artifact with a frozen box, got one");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: engine_bias_tests FOLDER\n";
    return 1;
  }
  try {
    test_numbers(argv[1]);
    test_parameters(argv[1]);
    test_refusals(argv[1]);
    test_calls(argv[1]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
