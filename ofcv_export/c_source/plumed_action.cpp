/* The function above as an action of PLUMED, 2.9 or later, in C++11. What is said about the file in
   namespace ofcv_file stands before this. */

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

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace PLMD {
namespace {

namespace file = ofcv_file;

/* What every error says. */
std::string complaint(const std::string& argument, const std::string& expected,
                      const std::string& got) {
  return argument + ": expected " + expected + ", got " + got;
}

/* The shortest text that is this very number, as Python writes it. */
std::string number_text(double number) {
  char text[32];
  for (int digits = 1; digits <= 17; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, number);
    if (std::strtod(text, nullptr) == number) break;
  }
  const std::string shortest = text;
  return shortest.find_first_of(".e") == std::string::npos ? shortest + ".0" : shortest;
}

/* Nine numbers as a list of rows. */
std::string rows_text(const double* numbers) {
  std::string text = "[[";
  for (int i = 0; i < 9; ++i) {
    text += (i == 0 ? "" : i % 3 ? ", " : "], [") + number_text(numbers[i]);
  }
  return text + "]]";
}

/* Half a period as text. PLUMED compares it with the limits of grids, where users write pi. */
std::string domain_end(double period) {
  const double pi = std::acos(-1.0);
  if (std::abs(period / (2 * pi) - 1) < 1e-9) return "pi";
  return number_text(period / 2);
}

/* Whether vectors lie along x, y and z but for rounding errors. */
bool is_orthorhombic(const double* box) {
  const double rounding = 1e-7 * std::max(box[0], std::max(box[4], box[8]));
  for (int i = 0; i < 9; ++i) {
    if (i % 4 == 0 ? !(box[i] > 0) : !(std::abs(box[i]) <= rounding)) return false;
  }
  return true;
}

/* Whether the volume is no tiny part of the product of the lengths. */
bool is_box(const double* box) {
  double rows[3][3], volume = 0;
  for (int i = 0; i < 3; ++i) {
    const double* row = box + 3 * i;
    const double length = std::sqrt(row[0] * row[0] + row[1] * row[1] + row[2] * row[2]);
    for (int j = 0; j < 3; ++j) rows[i][j] = row[j] / length;
  }
  for (int j = 0; j < 3; ++j) {
    const int k = (j + 1) % 3, l = (j + 2) % 3;
    volume += rows[0][j] * (rows[1][k] * rows[2][l] - rows[1][l] * rows[2][k]);
  }
  return std::abs(volume) > 1e-6;
}

/* Components node-0, node-1, ... with the values of the file and their derivatives. */
class ExportedVariable : public Colvar {
 public:
  explicit ExportedVariable(const ActionOptions& options);
  static void registerKeywords(Keywords& keys);
  void calculate() override;

 private:
  void read_parameters(const std::string& text);
  void require_atoms(const std::vector<AtomNumber>& atoms);
  void add_components();
  void set_box(const Tensor& box);
  void place(const std::vector<Vector>& positions, bool makes_whole);
  void set_component(int number);

  const Units& units() const { return OFCV_OWNER_OF_UNITS.getUnits(); }

  file::Frame frame_;
  double length_;     /* PLUMED's unit in the file's */
  double value_unit_; /* the file's unit of an energy in PLUMED's */
  bool ignores_box_ = false;
};

PLUMED_REGISTER_ACTION(ExportedVariable, file::action)

void ExportedVariable::registerKeywords(Keywords& keys) {
  Colvar::registerKeywords(keys);
  keys.add("atoms", "ATOMS", "the atoms of the file, in its order; by default those that it names");
  keys.add("optional", "PARAMETERS",
           "run-time parameters of a bias, in the file's units, e.g. "
           "{centre=0.1,0.2 force_constant=100,200}; by default those in the file");
  keys.addOutputComponent("node", "default",
                          "the values of the file: node-0, node-1, ...; an energy is in the "
                          "energy unit of the input");
}

ExportedVariable::ExportedVariable(const ActionOptions& options) : PLUMED_COLVAR_INIT(options) {
  std::string parameters;
  std::vector<AtomNumber> atoms;
  parse("PARAMETERS", parameters);
  parseAtomList("ATOMS", atoms);
  parseFlag("NOPBC", ignores_box_);
  checkRead();
  if (OFCV_OWNER_OF_UNITS.usingNaturalUnits()) {
    error(complaint("UNITS", "units that have a size", "NATURAL"));
  }
  length_ = units().getLength() / file::length_in_nm;
  value_unit_ = file::is_energy ? file::energy_in_kj_per_mol / units().getEnergy() : 1;
  if (atoms.empty()) {
    for (unsigned index : file::atoms) atoms.push_back(AtomNumber::index(index));
  }
  require_atoms(atoms);
  read_parameters(parameters);
  if (file::n_boxes > 0) {
    warning(
        "model: the box is part of the artifact, which gives no virial then: no pressure from it");
  }
  if (ignores_box_ && file::takes_box) {
    error(complaint("NOPBC", "none for a periodic artifact", "NOPBC"));
  }
  add_components();
  requestAtoms(atoms);
  log.printf("  %s\n", file::about);
}

void ExportedVariable::add_components() {
  for (int k = 0; k < file::n_values; ++k) {
    const std::string name = "node-" + std::to_string(k);
    addComponentWithDerivatives(name);
    if (file::periods[k] > 0) {
      const std::string end = domain_end(file::periods[k]);
      componentIsPeriodic(name, "-" + end, end);
    } else {
      componentIsNotPeriodic(name);
    }
  }
}

/* Throws unless the atoms are those of the file, in its order. */
void ExportedVariable::require_atoms(const std::vector<AtomNumber>& atoms) {
  if (atoms.size() != file::n_atoms) {
    error(
        complaint("ATOMS", std::to_string(file::n_atoms) + " atoms", std::to_string(atoms.size())));
  }
  for (unsigned i = 0; i < atoms.size(); ++i) {
    if (atoms[i].index() == file::atoms[i]) continue;
    const std::string serial = std::to_string(file::atoms[i] + 1), number = std::to_string(i + 1);
    error(complaint("ATOMS", "serial " + serial + " as number " + number,
                    std::to_string(atoms[i].serial())));
  }
}

/* Reads `name=value,value name=value`. */
void ExportedVariable::read_parameters(const std::string& text) {
  for (const std::string& word : Tools::getWords(text)) {
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    if (equals == std::string::npos) {
      error(complaint("PARAMETERS", "name=value pairs", "'" + word + "'"));
    }
    std::vector<double> values;
    for (const std::string& number : Tools::getWords(word.substr(equals + 1), ",")) {
      values.push_back(0);
      if (!Tools::convertNoexcept(number, values.back())) {
        error(complaint("PARAMETERS", "numbers for " + name, "'" + number + "'"));
      }
    }
    const int size = frame_.set(name, values.data(), static_cast<int>(values.size()));
    if (size < 0) error(complaint("parameters", file::parameters, name));
    if (size > 0) {
      error(complaint(name, "shape (" + std::to_string(size) + ",)",
                      "(" + std::to_string(values.size()) + ",)"));
    }
  }
}

void ExportedVariable::calculate() {
  const bool has_box = getPbc().isSet() && !ignores_box_;
  if (has_box) {
    set_box(getBox());
  } else if (file::takes_box) {
    error(complaint("box", "shape (3, 3)", "none"));
  }
  frame_.set_time(getTime() * units().getTime());
  place(getPositions(), has_box);
  if (const int code = frame_.evaluate()) error(file::error(code));
  for (int k = 0; k < file::n_values; ++k) set_component(k);
}

void ExportedVariable::set_box(const Tensor& box) {
  double vectors[9];
  for (int i = 0; i < 9; ++i) vectors[i] = length_ * box(i / 3, i % 3);
  if (file::takes_orthorhombic && !is_orthorhombic(vectors)) {
    error(complaint("box", "positive lengths along x, y and z and zeros", rows_text(vectors)));
  }
  if (!is_box(vectors)) {
    error(complaint("box", "linearly independent vectors", rows_text(vectors)));
  }
  for (int k = 0; k < file::n_boxes; ++k) {
    const double* own = file::boxes[k];
    double largest = 0, difference = 0;
    for (int i = 0; i < 9; ++i) {
      largest = std::max(largest, std::abs(own[i]));
      difference = std::max(difference, std::abs(own[i] - vectors[i]));
    }
    if (difference <= 1e-4 * largest) continue;
    error(complaint("box", "the artifact's own " + rows_text(own), rows_text(vectors)));
  }
  for (int i = 0; i < 9; ++i) frame_.box[i] = static_cast<file::Real>(vectors[i]);
}

/* Brings the positions to the file's unit, and makes molecules whole where there is a box: each
   atom at its image nearest to the one before. The first is put at the origin, since float numbers
   are coarse far from it, unless the file may depend on the place of the molecule. */
void ExportedVariable::place(const std::vector<Vector>& positions, bool makes_whole) {
  Vector place = file::may_be_moved ? Vector(0, 0, 0) : positions[0];
  for (unsigned i = 0; i < positions.size(); ++i) {
    if (i > 0) {
      place += makes_whole ? pbcDistance(positions[i - 1], positions[i])
                           : delta(positions[i - 1], positions[i]);
    }
    for (int dim = 0; dim < 3; ++dim) {
      frame_.positions[3 * i + dim] = static_cast<file::Real>(length_ * place[dim]);
    }
  }
}

/* The virial is minus the derivative with respect to a strain of positions and box together. */
void ExportedVariable::set_component(int number) {
  Value* component = getPntrToComponent(number);
  const double value = value_unit_ * frame_.values[number];
  const file::Real* gradient = frame_.derivatives + 3 * file::n_atoms * number;
  double sum = value;
  Tensor virial;
  for (unsigned i = 0; i < file::n_atoms; ++i) {
    Vector derivative;
    for (int dim = 0; dim < 3; ++dim) {
      derivative[dim] = value_unit_ * length_ * gradient[3 * i + dim];
      sum += derivative[dim];
    }
    setAtomsDerivatives(component, static_cast<int>(i), derivative);
    for (int row = 0; row < 3; ++row) {
      for (int dim = 0; dim < 3; ++dim) {
        virial[row][dim] -= frame_.positions[3 * i + row] / length_ * derivative[dim];
      }
    }
  }
  for (int i = 0; i < 9 && file::has_box_derivatives; ++i) {
    sum += frame_.box_derivatives[9 * number + i];
  }
  if (!std::isfinite(sum)) {
    error(complaint("values", "finite values and derivatives", "NaN or infinity"));
  }
  component->set(value);
  if (file::n_boxes > 0) return;
  for (int i = 0; i < 27 && file::has_box_derivatives; ++i) {
    const int vector = i / 9, row = i / 3 % 3, dim = i % 3;
    virial[row][dim] -= value_unit_ * frame_.box[3 * vector + row] *
                        frame_.box_derivatives[9 * number + 3 * vector + dim];
  }
  setBoxDerivatives(component, virial);
}

}  // namespace
}  // namespace PLMD
