// Usage: contract_tests FOLDER [NAME]: calls the files that make_contract_cases.py wrote exactly as
// the engines call them: GROMACS's torchmodel.cpp, OpenMM-Torch's ReferenceTorchKernels.cpp,
// PLUMED's PytorchModel.cpp and Colvars' colvarcomp_torchann.cpp.

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/passes/freeze_module.h>
#include <torch/csrc/jit/passes/frozen_graph_optimizations.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "common/npy.hpp"
#include "ofcv/dtype.hpp"

namespace {

namespace fs = std::filesystem;
using torch::Tensor;
using torch::jit::Module;

// The executor of TorchScript profiles the first calls and optimises the later ones.
constexpr int n_calls = 4;

Tensor read(const fs::path& folder, const std::string& name) {
  Array array = npy::read((folder / (name + ".npy")).string());
  const auto type = array.dtype == ofcv::DType::int32 ? torch::kInt32 : torch::kFloat64;
  return torch::from_blob(array.bytes.data(), array.shape, type).clone();
}

std::vector<fs::path> folders(const fs::path& cases) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(cases)) found.push_back(entry.path());
  CHECK(!found.empty());
  return found;
}

bool holds(const fs::path& folder, const std::string& word) {
  return folder.filename().string().find(word) != std::string::npos;
}

bool is_double(const fs::path& folder) { return holds(folder, "float64"); }

/// `got` is within `tolerance` of the largest magnitude of `expected`.
void check_close(const Tensor& got, const Tensor& expected, double tolerance,
                 const std::string& what) {
  const Tensor found = got.detach().to(torch::kFloat64);
  const double scale = expected.abs().max().item<double>();
  const double error = (found - expected).abs().max().item<double>() / scale;
  if (!(error <= tolerance)) {
    throw std::logic_error(what + ": relative error " + std::to_string(error * 1e6) + "e-6");
  }
}

/// Central differences of a function of a float64 tensor.
Tensor differences(const std::function<double(const Tensor&)>& function, const Tensor& at,
                   double step) {
  Tensor gradient = torch::empty_like(at);
  for (std::int64_t i = 0; i < at.numel(); ++i) {
    double values[2];
    for (const int side : {0, 1}) {
      Tensor moved = at.clone();
      moved.view(-1)[i] += side == 1 ? step : -step;
      values[side] = function(moved);
    }
    gradient.view(-1)[i] = (values[1] - values[0]) / (2 * step);
  }
  return gradient;
}

/// `statement` must throw an exception whose text has this message.
void check_refused(const std::function<void()>& statement, const std::string& message) {
  std::string text;
  try {
    statement();
  } catch (const std::exception& error) {
    text = error.what();
  }
  if (text.find(message) == std::string::npos) {
    throw std::logic_error("expected the error\n  " + message + "\ngot\n  " + text);
  }
}

// GROMACS -----------------------------------------------------------------------------------------

struct EnergyAndForces {
  double energy = 0;
  Tensor forces;
};

/// What GROMACS passes: positions, box and so on as it has them.
struct GromacsInputs {
  Tensor positions, atom_numbers, box;
  Tensor pbc = torch::tensor({true, true, true}, torch::kBool);

  explicit GromacsInputs(const fs::path& folder)
      : positions(read(folder, "positions")),
        atom_numbers(read(folder, "atom_numbers")),
        box(read(folder, "box")) {}

  std::vector<torch::jit::IValue> listed(const fs::path& folder) const {
    std::vector<torch::jit::IValue> values;
    std::ifstream stream(folder / "inputs.txt");
    for (std::string name; std::getline(stream, name);) {
      if (name == "atom-positions") {
        // A reduced-precision copy that requires a gradient once more, as a leaf does.
        const auto options = torch::TensorOptions().dtype(torch::kFloat64).requires_grad(true);
        Tensor tensor = torch::from_blob(positions.data_ptr(), positions.sizes(), options);
        tensor = tensor.to(torch::kFloat32);
        values.emplace_back(tensor.to(torch::kCPU).requires_grad_(true));
      } else if (name == "atom-numbers") {
        values.emplace_back(atom_numbers);
      } else if (name == "box") {
        values.emplace_back(box.to(torch::kFloat32));
      } else if (name == "pbc") {
        values.emplace_back(pbc);
      }
    }
    return values;
  }
};

Module gromacs_load(const fs::path& folder) {
  Module model = torch::jit::load((folder / "model.pt").string(), torch::Device(torch::kCPU));
  model.eval();
  return model;
}

EnergyAndForces gromacs_evaluate(Module& model, const fs::path& folder,
                                 const GromacsInputs& given) {
  auto inputs = given.listed(folder);
  const c10::IValue out = model.forward(inputs);
  const auto outputs = out.isTuple() ? out.toTuple() : c10::ivalue::Tuple::create({out.toTensor()});
  Tensor energy = outputs->elements()[0].toTensor();
  Tensor forces;
  if (outputs->elements().size() > 1) {
    forces = outputs->elements()[1].toTensor().to(torch::kCPU);
  } else {
    inputs[0].toTensor().retain_grad();
    energy.backward();
    forces = -1. * inputs[0].toTensor().grad().to(torch::kCPU);
  }
  energy = energy.to(torch::kFloat32).to(torch::kCPU);
  forces = forces.to(torch::kFloat32).to(torch::kCPU);
  // GROMACS sums over ranks through the pointer, and reads the rows through an accessor.
  CHECK(forces.is_contiguous());
  CHECK((forces.accessor<float, 2>().size(1) == 3));
  return {energy.item<float>(), forces};
}

void test_gromacs(const fs::path& cases) {
  for (const bool optimize : {true, false}) {
    torch::jit::setGraphExecutorOptimize(optimize);
    for (const fs::path& folder : folders(cases / "gromacs")) {
      Module model = gromacs_load(folder);
      const GromacsInputs given(folder);
      const Tensor energy = read(folder, "energy"), forces = read(folder, "forces");
      // Positions are float32 even where the file computes in float64, and multiples of 2^-10 here;
      // those of periodic images are not.
      for (int call = 0; call < n_calls; ++call) {
        const EnergyAndForces got = gromacs_evaluate(model, folder, given);
        check_close(torch::tensor(got.energy, torch::kFloat64), energy, 1e-4,
                    folder.string() + ", energy");
        check_close(got.forces, forces, 1e-4, folder.string() + ", forces");
      }
      const auto moved_energy = [&](const Tensor& positions) {
        GromacsInputs moved(folder);
        moved.positions = positions;
        return gromacs_evaluate(model, folder, moved).energy;
      };
      const Tensor slopes = differences(moved_energy, given.positions, 1. / 2048);
      check_close(-slopes, forces, 1e-2, folder.string() + ", central differences");
    }
  }
}

void test_gromacs_refused(const fs::path& cases) {
  torch::jit::setGraphExecutorOptimize(false);
  for (const fs::path& folder : folders(cases / "gromacs")) {
    Module model = gromacs_load(folder);
    const auto refused = [&](const std::function<void(GromacsInputs&)>& spoil,
                             const std::string& message) {
      GromacsInputs given(folder);
      spoil(given);
      check_refused([&] { gromacs_evaluate(model, folder, given); }, message);
    };
    const std::int64_t n = GromacsInputs(folder).positions.size(0);
    const std::string size = std::to_string(n);
    refused([](GromacsInputs& given) { given.positions = given.positions.slice(0, 1).clone(); },
            "atom-positions: expected an input group of " + size + " atoms, got " +
                std::to_string(n - 1) + "\n");
    refused([](GromacsInputs& given) { given.atom_numbers[0] = 8; },
            "atom-numbers: expected [6, 7, 8, 1, 16] for the bias's atoms, got [6, 7, 8, 1, 8]\n");
    refused([](GromacsInputs& given) { given.pbc[2] = false; },
            "pbc: expected all three directions periodic, got [True, True, False]\n");
    refused([](GromacsInputs& given) { given.box.zero_(); },
            "box: expected lattice vectors, got [[0., 0., 0.], [0., 0., 0.], [0., 0., 0.]]\n");
  }
}

/// What gmx grompp tries out a model with: 2025, 2026 and the version after.
void test_gromacs_trial(const fs::path& cases) {
  for (const fs::path& folder : folders(cases / "gromacs")) {
    Module model = gromacs_load(folder);
    GromacsInputs given(folder);
    const std::int64_t n = given.positions.size(0);
    const Tensor line = 0.01 * torch::outer(torch::arange(1, n + 1), torch::arange(1, 4));
    for (const Tensor& positions :
         {torch::zeros({1, 3}, torch::kFloat64), torch::zeros({2, 3}, torch::kFloat64),
          line.to(torch::kFloat64)}) {
      given.positions = positions.contiguous();
      given.atom_numbers = torch::ones({positions.size(0)}, torch::kInt32);
      given.box = torch::eye(3, torch::kFloat64);
      const EnergyAndForces got = gromacs_evaluate(model, folder, given);
      CHECK(got.energy == 0);
      CHECK(got.forces.sizes() == positions.sizes());
      CHECK(got.forces.abs().max().item<float>() == 0);
    }
  }
}

// OpenMM-Torch ------------------------------------------------------------------------------------

struct OpenMMCase {
  fs::path folder;
  Module module;
  Tensor positions, box, parameters;
  bool uses_periodic, outputs_forces;

  explicit OpenMMCase(const fs::path& folder)
      : folder(folder),
        module(torch::jit::load((folder / "model.pt").string())),
        positions(read(folder, "positions")),
        parameters(read(folder, "parameters")),
        uses_periodic(fs::exists(folder / "box.npy")),
        outputs_forces(!holds(folder, "energy")) {
    if (uses_periodic) box = read(folder, "box");
    module.eval();
    module = torch::jit::freeze(module);
  }
};

struct OpenMMResult {
  double energy = 0;
  Tensor forces, parameter_derivatives;
};

/// One step: on the Reference platform a parameter has no axis, on the others one of length 1.
OpenMMResult openmm_execute(OpenMMCase& given, torch::Dtype dtype, bool reference) {
  const auto leaf = [&](const Tensor& tensor) {
    return tensor.detach().to(dtype, false, true).requires_grad_(true);
  };
  const Tensor positions = leaf(given.positions);
  std::vector<torch::jit::IValue> inputs = {positions};
  if (given.uses_periodic) inputs.emplace_back(given.box.to(dtype));
  std::vector<Tensor> globals;
  for (std::int64_t i = 0; i < given.parameters.numel(); ++i) {
    const Tensor value = given.parameters[i];
    globals.push_back(leaf(reference ? value : value.reshape({1})));
    inputs.emplace_back(globals.back());
  }
  Tensor energy, forces;
  if (given.outputs_forces) {
    const auto outputs = given.module.forward(inputs).toTuple();
    energy = outputs->elements()[0].toTensor();
    forces = outputs->elements()[1].toTensor();
    energy.backward();
  } else {
    energy = given.module.forward(inputs).toTensor();
    energy.backward();
    forces = -positions.grad();
  }
  CHECK(forces.dtype() == dtype);
  CHECK(forces.is_contiguous());
  std::vector<Tensor> derivatives;
  for (const Tensor& global : globals) derivatives.push_back(global.grad().reshape({}));
  return {energy.item<double>(), forces, torch::stack(derivatives)};
}

void test_openmm_torch(const fs::path& cases) {
  torch::jit::setGraphExecutorOptimize(true);
  for (const fs::path& folder : folders(cases / "openmm")) {
    if (holds(folder, "fixed")) continue;
    OpenMMCase given(folder);
    const Tensor energy = read(folder, "energy"), forces = read(folder, "forces");
    for (const auto& [dtype, reference] :
         std::map<torch::Dtype, bool>{{torch::kFloat64, true}, {torch::kFloat32, false}}) {
      const bool both_double = is_double(folder) && dtype == torch::kFloat64;
      const double tolerance = both_double ? 1e-11 : 1e-4;
      for (int call = 0; call < n_calls; ++call) {
        const OpenMMResult got = openmm_execute(given, dtype, reference);
        check_close(torch::tensor(got.energy, torch::kFloat64), energy, tolerance,
                    folder.string() + ", energy");
        check_close(got.forces, forces, tolerance, folder.string() + ", forces");
      }
    }
    if (!is_double(folder)) continue;
    const Tensor positions = given.positions, parameters = given.parameters;
    const auto energy_of = [&] { return openmm_execute(given, torch::kFloat64, true).energy; };
    const auto of_positions = [&](const Tensor& moved) {
      given.positions = moved;
      return energy_of();
    };
    check_close(-differences(of_positions, positions, 1e-6), forces, 1e-6,
                folder.string() + ", central differences");
    given.positions = positions;
    const auto of_parameters = [&](const Tensor& moved) {
      given.parameters = moved;
      return energy_of();
    };
    const Tensor slopes = differences(of_parameters, parameters, 1e-6);
    given.parameters = parameters;
    check_close(openmm_execute(given, torch::kFloat64, true).parameter_derivatives, slopes, 1e-6,
                folder.string() + ", derivatives of the parameters");
  }
}

void test_openmm_torch_refused(const fs::path& cases) {
  for (const fs::path& folder : folders(cases / "openmm")) {
    OpenMMCase given(folder);
    if (holds(folder, "fixed")) {
      check_refused([&] { openmm_execute(given, torch::kFloat64, true); },
                    "box: expected the artifact's own [[2., 0., 0.], [0., 2., 0.], [0., 0., 2.]], "
                    "got [[2.");
    }
    given.positions = given.positions.slice(0, 1).clone();
    check_refused([&] { openmm_execute(given, torch::kFloat64, true); },
                  "positions: expected 9 particles, got 8\n");
  }
}

// PLUMED and Colvars ------------------------------------------------------------------------------

/// PLUMED freezes the module by hand and optimises it for inference.
Module plumed_load(const fs::path& folder) {
  Module model = torch::jit::load((folder / "model.pt").string(), torch::Device(torch::kCPU));
  model.eval();
  Module frozen = torch::jit::freeze_module(model, {});
  auto graph = frozen.get_method("forward").graph();
  torch::jit::OptimizeFrozenGraph(graph, true);
  return torch::jit::optimize_for_inference(frozen);
}

void test_plumed_pytorch(const fs::path& cases) {
  torch::jit::setGraphExecutorOptimize(true);
  for (const fs::path& folder : folders(cases / "networks")) {
    if (!holds(folder, "plumed")) continue;
    Module model = plumed_load(folder);
    const Tensor descriptors = read(folder, "descriptors");
    const Tensor values = read(folder, "values"), gradients = read(folder, "gradients");
    for (int call = 0; call < n_calls; ++call) {
      Tensor input = descriptors.to(torch::kFloat32);
      input.set_requires_grad(true);
      const Tensor output = model.forward({input}).toTensor();
      CHECK(output.scalar_type() == torch::kFloat32);
      check_close(output, values, 1e-5, folder.string() + ", values");
      for (std::int64_t j = 0; j < output.numel(); ++j) {
        const Tensor seed = torch::ones({1}).expand({1, 1});
        const Tensor gradient =
            torch::autograd::grad({output.slice(1, j, j + 1)}, {input}, {seed}, true, false)[0];
        CHECK(gradient.scalar_type() == torch::kFloat32);
        check_close(gradient[0], gradients[j], 1e-5, folder.string() + ", gradient");
        const auto value = [&](const Tensor& moved) {
          return model.forward({moved.to(torch::kFloat32)}).toTensor()[0][j].item<double>();
        };
        check_close(differences(value, descriptors, 1. / 128)[0], gradients[j], 1e-2,
                    folder.string() + ", central differences");
      }
    }
    check_refused([&] { model.forward({torch::zeros({1, 5})}); },
                  "descriptors: expected shape (1, 6), got [1, 5]\n");
  }
}

void test_colvars_torchann(const fs::path& cases) {
  torch::jit::setGraphExecutorOptimize(true);
  for (const fs::path& folder : folders(cases / "networks")) {
    if (!holds(folder, "colvars")) continue;
    const Tensor descriptors = read(folder, "descriptors");
    const Tensor values = read(folder, "values"), gradients = read(folder, "gradients");
    for (const bool double_input : {false, true}) {
      Module nn = torch::jit::load((folder / "model.pt").string());
      nn.to(torch::kCPU);
      auto options = torch::TensorOptions().dtype(torch::kFloat32).requires_grad(true);
      if (double_input) {
        options = options.dtype(torch::kFloat64);
        nn.to(torch::kFloat64);
      }
      Tensor input = torch::zeros({1, descriptors.size(1)}, options);
      const auto output = [&](std::int64_t j) { return nn.forward({input}).toTensor()[0][j]; };
      const auto set = [&](const Tensor& given) {
        const torch::NoGradGuard no_grad;
        for (std::int64_t l = 0; l < input.size(1); ++l) input[0][l] = given[0][l].item<double>();
      };
      output(0);
      const double tolerance = double_input ? 1e-12 : 1e-5;
      for (int call = 0; call < n_calls; ++call) {
        for (std::int64_t j = 0; j < values.numel(); ++j) {
          set(descriptors);
          const Tensor value = output(j);
          const Tensor gradient = torch::autograd::grad({value}, {input})[0][0];
          CHECK(gradient.scalar_type() == input.scalar_type());
          check_close(value, values[0][j], tolerance, folder.string() + ", value");
          check_close(gradient, gradients[j], tolerance, folder.string() + ", gradient");
          const auto moved_value = [&](const Tensor& moved) {
            set(moved);
            return output(j).item<double>();
          };
          const Tensor slopes =
              differences(moved_value, descriptors, double_input ? 1e-6 : 1. / 128);
          check_close(slopes[0], gradients[j], double_input ? 1e-7 : 1e-2,
                      folder.string() + ", central differences");
        }
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"gromacs", test_gromacs},
                     {"gromacs_refused", test_gromacs_refused},
                     {"gromacs_trial", test_gromacs_trial},
                     {"openmm_torch", test_openmm_torch},
                     {"openmm_torch_refused", test_openmm_torch_refused},
                     {"plumed_pytorch", test_plumed_pytorch},
                     {"colvars_torchann", test_colvars_torchann}});
}
