// OFCV: an exported collective variable or bias as an action of PLUMED, 2.9 or later.
//
//     LOAD FILE=OFCV.so
//     cv: OFCV MODEL=cv.so ATOMS=5,7,9,15,17
//     METAD ARG=cv.node-0 SIGMA=0.1 HEIGHT=1 PACE=500
//
// A collective variable of a graph of atoms names its atoms itself, or is told others:
//
//     cv: OFCV MODEL=cv.pt2 SYSTEM=1,2 ENVIRONMENT=3-650:3 ELEMENTS=Na,Cl,O*216
//
// How to build and use it: docs/engines/plumed.md.

#include <core/ActionRegister.h>
#include <core/Colvar.h>
#include <core/PlumedMain.h>
#include <tools/Pbc.h>
#include <tools/Tools.h>
#include <tools/Units.h>
#if __has_include(<core/Atoms.h>)
#include <core/Atoms.h>
#define OFCV_OWNER_OF_UNITS plumed.getAtoms()  // PLUMED 2.9
#else
#define OFCV_OWNER_OF_UNITS (*this)
#endif

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numbers>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ofcv/engine_function.hpp"
#include "ofcv/error.hpp"
#include "ofcv/graph_atoms.hpp"
#include "ofcv/open_engine_function.hpp"

namespace PLMD {

namespace {

/// Reads `name=value,value name=value`.
ofcv::Parameters parse_parameters(const std::string& text) {
  ofcv::Parameters parameters;
  for (const std::string& word : Tools::getWords(text)) {
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    if (equals == std::string::npos) {
      throw ofcv::Error("PARAMETERS", "name=value pairs", "'" + word + "'");
    }
    for (const std::string& number : Tools::getWords(word.substr(equals + 1), ",")) {
      parameters[name].emplace_back();
      if (!Tools::convertNoexcept(number, parameters[name].back())) {
        throw ofcv::Error("PARAMETERS", "numbers for " + name, "'" + number + "'");
      }
    }
  }
  return parameters;
}

/// Reads chemical symbols, such as `Na,Cl,O*216`, in which 216 atoms are oxygen.
std::vector<std::string> parse_elements(const std::vector<std::string>& words) {
  std::vector<std::string> elements;
  for (const std::string& word : words) {
    const std::size_t star = word.find('*');
    int count = 1;
    const bool is_number =
        star == std::string::npos || Tools::convertNoexcept(word.substr(star + 1), count);
    if (!is_number || count < 1) {
      throw ofcv::Error("ELEMENTS", "symbols, or symbol*number", "'" + word + "'");
    }
    elements.insert(elements.end(), static_cast<std::size_t>(count), word.substr(0, star));
  }
  return elements;
}

/// Zero-based indices of atoms; nothing where there are none.
std::optional<std::vector<std::int64_t>> indices_of(const std::vector<AtomNumber>& atoms) {
  if (atoms.empty()) return std::nullopt;
  std::vector<std::int64_t> indices;
  for (const AtomNumber& atom : atoms) indices.push_back(atom.index());
  return indices;
}

/// Half a period as text. PLUMED compares it with the limits of grids, where users write pi.
std::string domain_end(double period) {
  if (std::abs(period / (2 * std::numbers::pi) - 1) < 1e-9) return "pi";
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), period / 2);
  return {text.data(), end.ptr};
}

/// Throws unless `atoms` are those of the artifact, in its order.
void require_atoms(const std::vector<AtomNumber>& atoms,
                   const std::vector<std::int64_t>& expected) {
  if (atoms.size() != expected.size()) {
    throw ofcv::Error("ATOMS", std::to_string(expected.size()) + " atoms",
                      std::to_string(atoms.size()));
  }
  for (std::size_t i = 0; i < atoms.size(); ++i) {
    if (static_cast<std::int64_t>(atoms[i].index()) == expected[i]) continue;
    const std::string serial = std::to_string(expected[i] + 1), number = std::to_string(i + 1);
    throw ofcv::Error("ATOMS", "serial " + serial + " as number " + number,
                      std::to_string(atoms[i].serial()));
  }
}

}  // namespace

/// Components node-0, node-1, ... with the values of an artifact and their derivatives.
class OFCV : public Colvar {
 public:
  explicit OFCV(const ActionOptions& options);
  static void registerKeywords(Keywords& keys);
  void calculate() override;

 private:
  void set_up();
  void set_component(std::size_t number);
  ofcv::GraphAtoms parse_graph_atoms();

  const Units& units() const { return OFCV_OWNER_OF_UNITS.getUnits(); }

  std::unique_ptr<ofcv::EngineFunction> variable_;
  bool ignores_box_ = false;
};

PLUMED_REGISTER_ACTION(OFCV, "OFCV")

void OFCV::registerKeywords(Keywords& keys) {
  Colvar::registerKeywords(keys);
  keys.add("compulsory", "MODEL", "the exported file, .so, or .pt or .pt2 with LibTorch");
  keys.add("atoms", "ATOMS",
           "the atoms of the artifact, in its order; by default those that the file names");
  keys.add("atoms", "SYSTEM",
           "of a graph of atoms, those of the system; by default those that the file names");
  keys.add("atoms", "ENVIRONMENT", "of a graph of atoms, those that are nodes near the system");
  keys.add("atoms", "SUBSYSTEM", "of a graph of atoms, those with long-range edges");
  keys.add("optional", "ELEMENTS",
           "of a graph of atoms, the chemical symbols of SYSTEM, then of ENVIRONMENT, e.g. "
           "Na,Cl,O*216; by default those that the file names");
  keys.add("compulsory", "DEVICE", "cpu", "where the artifact runs: cpu, cuda or cuda:<index>");
  keys.add("compulsory", "THREADS", "1", "number of threads of LibTorch");
  keys.add("optional", "PARAMETERS",
           "run-time parameters of a bias, in the artifact's units, e.g. "
           "{centre=0.1,0.2 force_constant=100,200}; by default those in the file");
  keys.addOutputComponent("node", "default",
                          "the values of the artifact: node-0, node-1, ...; an energy is in the "
                          "energy unit of the input");
}

OFCV::OFCV(const ActionOptions& options) : PLUMED_COLVAR_INIT(options) {
  try {
    set_up();
  } catch (const ofcv::Error& failure) {
    error(failure.what());
  }
}

ofcv::GraphAtoms OFCV::parse_graph_atoms() {
  const auto indices = [this](const char* keyword) {
    std::vector<AtomNumber> atoms;
    parseAtomList(keyword, atoms);
    return indices_of(atoms);
  };
  ofcv::GraphAtoms found{indices("SYSTEM"), indices("ENVIRONMENT"), indices("SUBSYSTEM"), {}};
  std::vector<std::string> words;
  parseVector("ELEMENTS", words);
  if (!words.empty()) found.elements = parse_elements(words);
  return found;
}

void OFCV::set_up() {
  std::string model, device, parameters;
  std::vector<AtomNumber> atoms;
  int n_threads = 1;
  parse("MODEL", model);
  parse("DEVICE", device);
  parse("THREADS", n_threads);
  parse("PARAMETERS", parameters);
  parseAtomList("ATOMS", atoms);
  parseFlag("NOPBC", ignores_box_);
  const ofcv::GraphAtoms graph_atoms = parse_graph_atoms();
  checkRead();
  if (n_threads < 1) {
    throw ofcv::Error("THREADS", "a positive number", std::to_string(n_threads));
  }
  if (OFCV_OWNER_OF_UNITS.usingNaturalUnits()) {
    throw ofcv::Error("UNITS", "units that have a size", "NATURAL");
  }

  variable_ =
      ofcv::open_engine_function(model,
                                 ofcv::EngineSystem{.length_unit = units().getLength(),
                                                    .energy_unit = units().getEnergy(),
                                                    .parameters = parse_parameters(parameters),
                                                    .device = device,
                                                    .threads = n_threads},
                                 graph_atoms);
  if (atoms.empty()) {
    for (const std::int64_t index : variable_->atoms()) atoms.push_back(AtomNumber::index(index));
  }
  require_atoms(atoms, variable_->atoms());
  if (!variable_->gives_strain()) {
    warning(
        "model: the box is part of the artifact, which gives no virial then: no pressure from it");
  }
  if (ignores_box_ && variable_->takes_box()) {
    throw ofcv::Error("NOPBC", "none for a periodic artifact", "NOPBC");
  }
  for (std::size_t k = 0; k < variable_->n_outputs(); ++k) {
    const std::string name = "node-" + std::to_string(k);
    addComponentWithDerivatives(name);
    if (const std::optional<double> period = variable_->period(k)) {
      const std::string end = domain_end(*period);
      componentIsPeriodic(name, "-" + end, end);
    } else {
      componentIsNotPeriodic(name);
    }
  }
  requestAtoms(atoms);

  const ofcv::Metadata& metadata = variable_->metadata();
  log.printf("  file %s (%s, %s), written %s\n", model.c_str(), metadata.format.c_str(),
             ofcv::dtype_name(metadata.inputs[0].dtype), metadata.created.c_str());
  log.printf("  %zu atoms, %zu values, lengths in %s, %s\n", atoms.size(), variable_->n_outputs(),
             metadata.length_unit->c_str(), metadata.periodic() ? "periodic" : "not periodic");
#ifndef OFCV_WITHOUT_TORCH
  log.printf("  on %s with %d threads of LibTorch %s\n", device.c_str(), n_threads, TORCH_VERSION);
#endif
}

void OFCV::calculate() {
  const bool has_box = getPbc().isSet() && !ignores_box_;
  try {
    variable_->set_time(getTime() * units().getTime());
    variable_->evaluate(&getPositions()[0][0], has_box ? &getBox()(0, 0) : nullptr);
  } catch (const ofcv::Error& failure) {
    error(failure.what());
  }
  for (std::size_t k = 0; k < variable_->n_outputs(); ++k) set_component(k);
}

void OFCV::set_component(std::size_t number) {
  Value* component = getPntrToComponent(static_cast<int>(number));
  component->set(variable_->value(number));
  const std::span<const double> gradient = variable_->derivatives(number);
  for (unsigned i = 0; i < getNumberOfAtoms(); ++i) {
    setAtomsDerivatives(component, static_cast<int>(i),
                        Vector(gradient[3 * i], gradient[3 * i + 1], gradient[3 * i + 2]));
  }
  if (!variable_->gives_strain()) return;
  const std::array<double, 9> strain = variable_->strain_derivative(number);
  Tensor virial;
  for (int i = 0; i < 9; ++i) virial(i / 3, i % 3) = -strain[i];
  setBoxDerivatives(component, virial);
}

}  // namespace PLMD
