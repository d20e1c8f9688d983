// EngineVariable on the artifacts of make_engine_cases.py, with LibTorch or on libraries alone.
// Usage: engine_variable_tests FOLDER.

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "ofcv/engine_variable.hpp"

namespace {

namespace fs = std::filesystem;
using Numbers = std::vector<double>;

#ifdef OFCV_WITHOUT_TORCH
constexpr const char* suffix = ".so";
#else
constexpr const char* suffix = ".pt";
#endif

std::string file(const fs::path& folder, const std::string& name) {
  return (folder / (name + suffix)).string();
}

struct Case {
  std::string path;
  std::map<std::string, Numbers> content;
  Numbers positions = content.at("positions"), box = content.at("box");
  Numbers values = content.at("values"), derivatives = content.at("derivatives");
  Numbers strains = content.at("strains");
  double time = content.at("time")[0];

  Case(const fs::path& folder, const std::string& name)
      : path(file(folder, name)),
        content(nlohmann::json::parse(std::ifstream(folder / (name + ".json")))) {}
};

Numbers scaled(Numbers numbers, double factor) {
  for (double& number : numbers) number *= factor;
  return numbers;
}

bool agree(const Numbers& found, const Numbers& expected, double tolerance) {
  double largest = 0, difference = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    difference = std::max(difference, std::abs(found[i] - expected[i]));
  }
  return found.size() == expected.size() && difference <= tolerance * largest;
}

/// Values, derivatives and strains at positions and a box in an engine's units must be those of the
/// case.
void check_results(const Case& one, const Numbers& positions, double length_unit,
                   double energy_unit, double tolerance) {
  ofcv::EngineVariable variable(one.path, {.length_unit = length_unit,
                                           .energy_unit = energy_unit,
                                           .n_atoms = 7,
                                           .periodic = !one.box.empty()});
  const Numbers places = scaled(positions, 1 / length_unit), box = scaled(one.box, 1 / length_unit);
  variable.set_time(one.time);
  variable.evaluate(places.data(), box.empty() ? nullptr : box.data());
  CHECK(variable.n_outputs() == one.values.size());
  const double unit = variable.is_energy() ? energy_unit : 1;
  Numbers values, derivatives, strains;
  for (std::size_t k = 0; k < variable.n_outputs(); ++k) {
    const auto gradient = variable.derivatives(k);
    const auto strain = variable.strain_derivative(k);
    values.push_back(variable.value(k));
    derivatives.insert(derivatives.end(), gradient.begin(), gradient.end());
    strains.insert(strains.end(), strain.begin(), strain.end());
  }
  CHECK(agree(values, scaled(one.values, 1 / unit), tolerance));
  CHECK(agree(derivatives, scaled(one.derivatives, length_unit / unit), tolerance));
  CHECK(agree(strains, scaled(one.strains, 1 / unit), tolerance));
}

void test_numbers(const fs::path& folder) {
  for (const std::string name : {"open", "cut", "periodic", "single", "angstrom", "moving", "late",
                                 "torsion", "several", "mixed", "height"}) {
    const Case one(folder, name);
    const double tolerance = name == "single" || name == "late" ? 1e-5 : 1e-11;
    check_results(one, one.positions, 1, 1, tolerance);
    check_results(one, one.positions, 0.1, 4.184, tolerance);  // Angstrom and kcal/mol
    if (name == "height") continue;
    // Far from the origin, in float32 as well.
    Numbers moved = one.positions;
    for (std::size_t i = 0; i < moved.size(); ++i) moved[i] += i % 3 == 0 ? 3000 : -500;
    check_results(one, moved, 1, 1, std::max(tolerance, 1e-8));
  }
}

void test_changing_boxes(const fs::path& folder) {
  const Case one(folder, "periodic");
  ofcv::EngineVariable variable(one.path, {});
  const Numbers narrow = scaled(one.box, 0.2);
  for (const bool is_changed : {false, true, false}) {
    variable.evaluate(one.positions.data(), is_changed ? narrow.data() : one.box.data());
    CHECK(agree({variable.value(0)}, one.values, 1e-11) != is_changed);
  }
}

/// Nearest images in lattices whose vectors are hidden by shears, against a search far around.
void test_nearest_images(const fs::path&) {
  std::mt19937 random(0);
  std::uniform_real_distribution<double> number(-1, 1);
  std::uniform_int_distribution<int> integer(-9, 9);
  for (int trial = 0; trial < 200; ++trial) {
    ofcv::Lattice plain{};
    for (int k = 0; k < 3; ++k) {
      for (int dim = 0; dim < 3; ++dim) plain[k][dim] = (k == dim ? 1.5 : 0) + 0.5 * number(random);
    }
    ofcv::Lattice sheared = plain;
    for (int step = 0; step < 3; ++step) {
      ofcv::Vector& row = sheared[step % 3];
      row = ofcv::detail::sum(row, integer(random), sheared[(step + 1) % 3]);
    }
    ofcv::Vector vector;
    for (double& component : vector) component = 20 * number(random);
    const ofcv::Vector found = ofcv::NearestImage(sheared)(vector);
    const ofcv::Vector start = ofcv::NearestImage(plain)(vector);
    double shortest = std::numeric_limits<double>::infinity();
    for (int n = 0; n < 9 * 9 * 9; ++n) {
      ofcv::Vector image = ofcv::detail::sum(start, n % 9 - 4, plain[0]);
      image = ofcv::detail::sum(image, n / 9 % 9 - 4, plain[1]);
      image = ofcv::detail::sum(image, n / 81 - 4, plain[2]);
      shortest = std::min(shortest, ofcv::detail::dot(image, image));
    }
    CHECK(std::abs(ofcv::detail::dot(found, found) - shortest) < 1e-9);
    // It is an image of the vector.
    const ofcv::Vector zero = ofcv::NearestImage(plain)(ofcv::detail::sum(found, -1, vector));
    CHECK(ofcv::detail::dot(zero, zero) < 1e-16);
  }
}

void test_parameters(const fs::path& folder) {
  const Case one(folder, "open");
  ofcv::EngineVariable bias(one.path, {});
  CHECK(bias.parameters() == ofcv::Parameters({{"centre", {0.2}}, {"force_constant", {50}}}));
  bias.set_parameter("force_constant", Numbers{100});
  bias.evaluate(one.positions.data(), nullptr);
  CHECK(agree({bias.value(0)}, scaled(one.values, 2), 1e-12));
  ofcv::EngineVariable strong(one.path, {.parameters = {{"force_constant", {150}}}});
  strong.evaluate(one.positions.data(), nullptr);
  CHECK(agree({strong.value(0)}, scaled(one.values, 3), 1e-12));
  CHECK_ERROR(bias.set_parameter("kappa", Numbers{1}),
              "parameters: expected centre, force_constant, got kappa");
  CHECK_ERROR(bias.set_parameter("centre", (Numbers{1, 2})),
              "centre: expected shape (1,), got (2,)");
  // The time is the engine's.
  ofcv::EngineVariable moving(Case(folder, "moving").path, {});
  CHECK(moving.parameters().empty());
  CHECK_ERROR(moving.set_parameter("time", Numbers{1}), "parameters: expected none, got time");
}

void test_periods(const fs::path& folder) {
  const ofcv::EngineVariable angle(file(folder, "angle"), {});
  CHECK(std::abs(angle.period(0).value_or(0) - 2 * std::acos(-1)) < 1e-12);
  for (const char* name : {"several", "torsion"}) {
    CHECK(!ofcv::EngineVariable(file(folder, name), {}).period(0));
  }
}

void test_refusals(const fs::path& folder) {
  const auto open = [&](const char* name, const ofcv::EngineSystem& system) {
    ofcv::EngineVariable(file(folder, name), system);
  };
  const std::vector<std::string> elements = {"H", "X", "N", "C", "X", "X", "O"};
  open("open", {.n_atoms = 7, .elements = elements, .periodic = false});
  std::vector<std::string> others = elements;
  others[3] = "N";
  CHECK_ERROR(open("open", {.elements = others}),
              "atoms: expected C as atom 3 (zero-based), got N");
  CHECK_ERROR(open("open", {.n_atoms = 6}),
              "atoms: expected indices below the system's 6 atoms, got 6");
  for (const char* name : {"periodic", "fixed_box", "own_switch"}) {
    CHECK_ERROR(open(name, {.periodic = false}),
                "box: expected a periodic system, got one without a box");
  }
  CHECK_ERROR(open("five_frames", {}),
              "model: expected an artifact for one frame or any number of them, got one for 5");
  CHECK_ERROR(open("fractions", {}),
              "model: expected an artifact that takes positions, got one that takes fractions of a "
              "box");
#ifdef OFCV_WITHOUT_TORCH
  CHECK_ERROR(open("open", {.device = "cuda"}), "device: expected cpu for a .so file, got 'cuda'");
  const std::string torch = (folder / "network.pt").string();
  CHECK_ERROR(
      ofcv::EngineVariable(torch, {}),
      "model: expected a .so file, since this was built without LibTorch, got '" + torch + "'");
#else
  CHECK_ERROR(open("network", {}), "model: expected a collective_variable, got a contract");
#endif
}

void test_calls(const fs::path& folder) {
  const Case one(folder, "periodic");
  ofcv::EngineVariable bias(one.path, {});
  bias.evaluate(one.positions.data(), one.box.data());
  CHECK_ERROR(bias.evaluate(one.positions.data(), nullptr), "box: expected shape (3, 3), got none");
  Numbers positions = one.positions;
  positions[3 * 1 + 2] = std::numeric_limits<double>::quiet_NaN();
  CHECK_ERROR(bias.evaluate(positions.data(), one.box.data()),
              "positions: expected finite values, got nan at index (0, 1, 2)");
  Numbers box = one.box;
  box[1] = std::numeric_limits<double>::infinity();
  CHECK_ERROR(bias.evaluate(one.positions.data(), box.data()),
              "box: expected finite values, got inf at index (0, 1)");
  CHECK(agree({bias.value(0)}, one.values, 1e-11));  // as before

  ofcv::EngineVariable fixed(file(folder, "fixed_box"), {.length_unit = 0.1});
  const Numbers same = {20, 0, 0, 0, 21, 0, 0, 0, 19.001}, other = {20, 0, 0, 0, 20, 0, 0, 0, 20};
  fixed.evaluate(one.positions.data(), same.data());
  CHECK(!fixed.gives_strain() && bias.gives_strain());
  ofcv::EngineVariable own_switch(file(folder, "own_switch"), {.length_unit = 0.1});
  CHECK_ERROR(own_switch.evaluate(one.positions.data(), other.data()),
              "box: expected the artifact's own [[2.0, 0.0, 0.0], [0.0, 2.1, 0.0], [0.0, 0.0, "
              "1.9]], got [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]");
  CHECK_ERROR(fixed.evaluate(one.positions.data(), other.data()),
              "box: expected the artifact's own [[2.0, 0.0, 0.0], [0.0, 2.1, 0.0], [0.0, 0.0, "
              "1.9]], got [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]");
  ofcv::EngineVariable upright(file(folder, "orthorhombic"), {});
  Numbers rounded = {2, 0, 0, 0, 2, 0, 0, 1e-17, 2};
  upright.evaluate(one.positions.data(), rounded.data());
  const Numbers tilted = {2, 0, 0, 0, 2, 0, 0, 0.5, 2}, flat = {1, 0, 0, 0, 1, 0, 1, 1, 0};
  CHECK_ERROR(upright.evaluate(one.positions.data(), tilted.data()),
              "box: expected positive lengths along x, y and z and zeros, got [[2.0, 0.0, 0.0], "
              "[0.0, 2.0, 0.0], [0.0, 0.5, 2.0]]");
  CHECK_ERROR(bias.evaluate(one.positions.data(), flat.data()),
              "box: expected linearly independent vectors, got [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], "
              "[1.0, 1.0, 0.0]]");
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"numbers", test_numbers},
                     {"changing_boxes", test_changing_boxes},
                     {"nearest_images", test_nearest_images},
                     {"parameters", test_parameters},
                     {"periods", test_periods},
                     {"refusals", test_refusals},
                     {"calls", test_calls}});
}
