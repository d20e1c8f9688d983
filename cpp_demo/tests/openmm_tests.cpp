// Tests of ofcv::OpenMMForce on the files that openmm_test.py makes. Usage: openmm_tests FOLDER

#include <openmm/Context.h>
#include <openmm/NonbondedForce.h>
#include <openmm/Platform.h>
#include <openmm/State.h>
#include <openmm/System.h>
#include <openmm/VerletIntegrator.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "openmm/ofcv_force.hpp"

namespace {

namespace fs = std::filesystem;
using OpenMM::Vec3;

// As in openmm_test.py: the pair (5, 0), centre, force constant.
constexpr double centre = 0.35, force_constant = 5000;

const std::vector<Vec3> positions = {{0.00, 0.01, 0.02}, {0.12, 0.05, -0.03}, {0.20, 0.15, 0.05},
                                     {0.31, 0.12, 0.14}, {0.40, 0.25, 0.11},  {0.43, 0.36, 0.22},
                                     {0.52, 0.41, 0.31}};

double harmonic(double r, double c, double k) { return k * (r - c) * (r - c) / 2; }

double distance() {
  const Vec3 vector = positions[5] - positions[0];
  return std::sqrt(vector.dot(vector));
}

bool is_close(double found, double expected) {
  return std::abs(found - expected) <= 1e-10 * std::abs(expected);
}

/// A system of free particles with these forces, in a context.
struct Run {
  explicit Run(std::vector<std::unique_ptr<OpenMM::Force>> forces, bool periodic = false,
               std::size_t n_atoms = positions.size())
      : integrator(0.001) {
    auto* nonbonded = new OpenMM::NonbondedForce();
    nonbonded->setForceGroup(1);
    nonbonded->setCutoffDistance(0.5);
    if (periodic) nonbonded->setNonbondedMethod(OpenMM::NonbondedForce::CutoffPeriodic);
    for (std::size_t i = 0; i < n_atoms; ++i) {
      system.addParticle(12);
      nonbonded->addParticle(0, 0.1, 0);
    }
    system.addForce(nonbonded);
    for (auto& force : forces) system.addForce(force.release());
    context = std::make_unique<OpenMM::Context>(system, integrator,
                                                OpenMM::Platform::getPlatformByName("Reference"));
    context->setPositions({positions.begin(), positions.begin() + n_atoms});
  }

  double energy() {
    return context->getState(OpenMM::State::Energy, false, 1).getPotentialEnergy();
  }

  OpenMM::System system;
  OpenMM::VerletIntegrator integrator;
  std::unique_ptr<OpenMM::Context> context;
};

template <typename... Forces>
std::vector<std::unique_ptr<OpenMM::Force>> list(Forces... forces) {
  std::vector<std::unique_ptr<OpenMM::Force>> all;
  (all.push_back(std::move(forces)), ...);
  return all;
}

std::unique_ptr<OpenMM::Force> bias(const fs::path& path, ofcv::OpenMMOptions options = {}) {
  return std::make_unique<ofcv::OpenMMForce>(path.string(), std::move(options));
}

void test_forces(const fs::path& folder) {
  Run run(list(bias(folder / "restraint.pt")));
  const std::vector<Vec3> forces =
      run.context->getState(OpenMM::State::Forces, false, 1).getForces();
  const double step = 1e-4;
  double largest = 0;
  for (std::size_t atom = 0; atom < positions.size(); ++atom) {
    for (int dim = 0; dim < 3; ++dim) {
      double derivative = 0;
      for (const auto& [shift, weight] : {std::pair{-2, 1}, {-1, -8}, {1, 8}, {2, -1}}) {
        std::vector<Vec3> moved = positions;
        moved[atom][dim] += shift * step;
        run.context->setPositions(moved);
        derivative += weight * run.energy() / (12 * step);
      }
      CHECK(std::abs(forces[atom][dim] + derivative) <= 1e-4);
      largest = std::max(largest, std::abs(derivative));
    }
  }
  CHECK(largest > 100);
}

void test_parameters(const fs::path& folder) {
  const double r = distance();
  Run run(list(bias(folder / "restraint.pt", {.parameters = {{"centre", {0.5}}}, .prefix = "a_"}),
               bias(folder / "restraint.pt")));
  CHECK(run.context->getParameter("a_centre") == 0.5);
  CHECK(run.context->getParameter("centre") == centre);
  CHECK(is_close(run.energy(),
                 harmonic(r, 0.5, force_constant) + harmonic(r, centre, force_constant)));
  run.context->setParameter("a_force_constant", 10);
  run.context->setParameter("centre", 0.1);
  CHECK(is_close(run.energy(), harmonic(r, 0.5, 10) + harmonic(r, 0.1, force_constant)));
  run.context->reinitialize(true);
  CHECK(is_close(run.energy(), harmonic(r, 0.5, 10) + harmonic(r, 0.1, force_constant)));
}

void test_moving(const fs::path& folder) {
  Run run(list(bias(folder / "pull.pt")));
  CHECK(run.context->getParameters().empty());
  for (const auto& [time, c] : {std::pair{0.0, 0.3}, {1.5, 0.4}, {7.0, 0.5}}) {
    run.context->setTime(time);
    CHECK(is_close(run.energy(), harmonic(distance(), c, force_constant)));
  }
}

void test_box(const fs::path& folder) {
  Run run(list(bias(folder / "periodic.pt")), true);
  CHECK(run.system.usesPeriodicBoundaryConditions());
  const Vec3 box[3] = {{1.1, 0, 0}, {0.3, 1.2, 0}, {-0.4, 0.5, 1.3}};
  run.context->setPeriodicBoxVectors(box[0], box[1], box[2]);
  std::vector<Vec3> moved = positions;
  moved[0] += box[0] * 2 - box[2];
  run.context->setPositions(moved);
  CHECK(is_close(run.energy(), harmonic(distance(), centre, force_constant)));
}

/// The force is that of the file from which it was made, whatever becomes of file and folder.
void test_replaced(const fs::path& folder) {
  const fs::path here = fs::current_path(), copy = fs::absolute(folder / "replaced.pt");
  const fs::path other = fs::absolute(folder / "periodic.pt");
  const auto always = fs::copy_options::overwrite_existing;
  fs::copy_file(folder / "restraint.pt", copy, always);
  fs::current_path(copy.parent_path());
  auto force = bias("replaced.pt");
  fs::current_path(here);
  fs::copy_file(other, copy, always);
  Run run(list(std::move(force)));
  CHECK(is_close(run.energy(), harmonic(distance(), centre, force_constant)));
  fs::remove(copy);
  run.context->reinitialize(true);
  CHECK(is_close(run.energy(), harmonic(distance(), centre, force_constant)));
}

void test_refused(const fs::path& folder) {
  CHECK_ERROR(Run(list(bias(folder / "periodic.pt"))),
              "box: expected a periodic system, got one without a box");
  CHECK_ERROR(Run(list(bias(folder / "restraint.pt")), false, 5),
              "atoms: expected indices below the system's 5 atoms, got 5");
  CHECK_ERROR(Run(list(bias(folder / "restraint.pt", {.elements = {{"C", "C"}}}))),
              "elements: expected those of the system's 7 particles, got 2");
  const std::vector<std::string> elements = {"C", "C", "N", "C", "C", "O", "C"};
  Run(list(bias(folder / "restraint.pt", {.elements = elements})));
  CHECK_ERROR(
      Run(list(bias(folder / "restraint.pt", {.elements = std::vector<std::string>(7, "C")}))),
      "atoms: expected O as atom 5 (zero-based), got C");
  CHECK_ERROR(Run(list(bias(folder / "cv.pt"))),
              "model: expected a bias, whose values are in kJ/mol, kcal/mol, eV, Hartree, "
              "got a collective_variable in no unit");
  CHECK_ERROR(Run(list(bias(folder / "restraint.pt", {.parameters = {{"center", {1}}}}))),
              "parameters: expected centre, force_constant, got center");
  CHECK_ERROR(Run(list(bias(folder / "restraint.pt", {.parameters = {{"centre", {1, 2}}}}))),
              "centre: expected shape (1,), got (2,)");
  CHECK_ERROR(Run(list(bias(folder / "pull.pt", {.parameters = {{"time", {1}}}}))),
              "parameters: expected none, got time");
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"forces", test_forces},
                     {"parameters", test_parameters},
                     {"moving", test_moving},
                     {"box", test_box},
                     {"replaced", test_replaced},
                     {"refused", test_refused}});
}
