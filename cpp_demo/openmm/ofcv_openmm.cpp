// Runs OpenMM dynamics biased by an artifact, and measures what the bias costs a step.

#include <openmm/Context.h>
#include <openmm/LangevinMiddleIntegrator.h>
#include <openmm/Platform.h>
#include <openmm/State.h>
#include <openmm/System.h>
#include <openmm/VerletIntegrator.h>
#include <openmm/serialization/XmlSerializer.h>
#include <unistd.h>

#include <algorithm>
#include <bitset>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "common/npy.hpp"
#include "common/options.hpp"
#include "common/output_files.hpp"
#include "openmm/ofcv_force.hpp"

#ifndef OFCV_WITHOUT_TORCH
#include <ATen/Parallel.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

constexpr int n_turns = 20;

constexpr const char* usage =
    R"(usage: ofcv_openmm --system FILE --state FILE [--bias FILE] [options]

Runs OpenMM dynamics, with an exported bias or without one, and no Python in the loop.

  --system FILE            OpenMM System, as XML (openmm.XmlSerializer)
  --state FILE             OpenMM State, as XML: positions, box, time and, where it has them,
                           velocities; else these are drawn at --temperature
  --bias FILE              the artifact (.pt or .pt2); without it the run is unbiased
  --parameter NAME=X[,X]   other values than the artifact's for a run-time parameter
  --device cpu|cuda        where the bias runs (default: cpu)
  --platform NAME          OpenMM platform (default: Reference)
  --integrator NAME        verlet or langevin (default: verlet)
  --timestep FS            time step in fs (default: 1)
  --temperature K          of langevin and of drawn velocities (default: 300)
  --friction X             of langevin, in 1/ps (default: 1)
  --seed N                 of langevin and of drawn velocities (default: 1)
  --steps N                steps to run (default: 1000)
  --interval N             steps between two frames (default: 100)
  --energies FILE          writes step, time (ps), potential, kinetic, bias (kJ/mol) as .csv; the
                           potential has the bias in it
  --positions FILE         writes positions in nm, (frames, atoms, 3), as .npy
  --timed-steps N          times N more steps with and N without the bias, by turns
  --threads N              threads of LibTorch and of the CPU platform (default: 1)
  --help                   print this and stop

Exit code: 0, or 2 with one line on stderr when something is wrong.
)";

/// The values of NAME=X or NAME=X,Y,...
ofcv::Parameters parse_parameters(const Options& options) {
  ofcv::Parameters parameters;
  for (const std::string& text : options.all("--parameter")) {
    const std::size_t equals = text.find('=');
    if (equals == text.npos || equals == 0) {
      throw ofcv::Error("--parameter", "NAME=NUMBER[,NUMBER]", "'" + text + "'");
    }
    std::vector<double> values;
    for (std::size_t start = equals + 1; start <= text.size();) {
      const std::size_t comma = std::min(text.find(',', start), text.size());
      const std::string word = text.substr(start, comma - start);
      const std::optional<double> value = parse_number<double>(word);
      if (!value) throw ofcv::Error("--parameter", "a number", "'" + word + "'");
      values.push_back(*value);
      start = comma + 1;
    }
    parameters[text.substr(0, equals)] = values;
  }
  return parameters;
}

/// What the options say.
struct Arguments {
  explicit Arguments(const Options& given) : options(given) {
    if (integrator != "verlet" && integrator != "langevin") {
      throw ofcv::Error("--integrator", "verlet or langevin", "'" + integrator + "'");
    }
    if (bias.empty() && (!parameters.empty() || timed_steps > 0)) {
      throw ofcv::Error("--bias", "a file for --parameter and --timed-steps", "nothing");
    }
  }

  double positive(const std::string& name, double absent) const {
    return options.number(name, absent, "a positive number", [](double x) { return x > 0; });
  }

  int count(const std::string& name, int absent) const {
    return options.number(name, absent, "an integer from 1 to 2000000000",
                          [](int n) { return n >= 1 && n <= 2'000'000'000; });
  }

  const Options& options;
  std::string system = options.required("--system", "a file");
  std::string state = options.required("--state", "a file");
  std::string bias = options.text("--bias");
  ofcv::Parameters parameters = parse_parameters(options);
  std::string device = options.text("--device", "cpu");
  std::string platform = options.text("--platform", "Reference");
  std::string integrator = options.text("--integrator", "verlet");
  double timestep = positive("--timestep", 1);
  double temperature = positive("--temperature", 300);
  double friction = positive("--friction", 1);
  int seed = count("--seed", 1);
  int steps = count("--steps", 1000);
  int interval = count("--interval", 100);
  std::string energies = options.text("--energies");
  std::string positions = options.text("--positions");
  int timed_steps = count("--timed-steps", 0);
  int threads = count("--threads", 1);
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Reads an OpenMM object; OpenMM itself would take any other type for it.
template <typename T>
std::unique_ptr<T> read_xml(const std::string& option, const std::string& path,
                            const std::string& type) {
  std::ifstream stream(path);
  if (!stream) throw ofcv::Error(option, "a readable file", "'" + path + "'");
  std::stringstream content;
  content << stream.rdbuf();
  const std::string text = content.str();
  const std::size_t root = text.find("type=\"");
  if (!text.starts_with("<?xml") || root == text.npos ||
      !std::string_view(text).substr(root + 6).starts_with(type + "\"")) {
    throw ofcv::Error(option, "an OpenMM " + type + " as XML", "'" + path + "'");
  }
  return std::unique_ptr<T>(OpenMM::XmlSerializer::deserialize<T>(content));
}

/// The highest force group that no force of the system is in, for the bias alone.
int free_group(const OpenMM::System& system) {
  std::bitset<32> taken;
  for (int i = 0; i < system.getNumForces(); ++i) taken.set(system.getForce(i).getForceGroup());
  // The last group's flag would be the sign bit.
  for (int group = 30; group >= 0; --group) {
    if (!taken[group]) return group;
  }
  throw ofcv::Error("--system", "a force group that is free", "none");
}

std::unique_ptr<OpenMM::Integrator> make_integrator(const Arguments& arguments) {
  const double step = arguments.timestep / 1000;  // fs to OpenMM's ps
  if (arguments.integrator == "verlet") return std::make_unique<OpenMM::VerletIntegrator>(step);
  auto langevin = std::make_unique<OpenMM::LangevinMiddleIntegrator>(arguments.temperature,
                                                                     arguments.friction, step);
  langevin->setRandomNumberSeed(arguments.seed);
  return langevin;
}

/// A system in a context of its own, biased or not, in the state that was read.
class Simulation {
 public:
  Simulation(const Arguments& arguments, bool biased)
      : system_(read_xml<OpenMM::System>("--system", arguments.system, "System")),
        integrator_(make_integrator(arguments)) {
    if (biased) add_bias(arguments);
    OpenMM::Platform& platform = OpenMM::Platform::getPlatformByName(arguments.platform);
    if (arguments.platform == "CPU") {
      platform.setPropertyDefaultValue("Threads", std::to_string(arguments.threads));
    }
    context_ = std::make_unique<OpenMM::Context>(*system_, *integrator_, platform);
    start(arguments);
  }

  int n_atoms() const { return system_->getNumParticles(); }
  /// Throws, with the number of the step, when the dynamics diverge.
  void step(int n_steps) {
    try {
      integrator_->step(n_steps);
    } catch (const std::exception& error) {
      const std::string reason = error.what();
      if (reason.find("NaN") == reason.npos && reason.find(" nan ") == reason.npos) throw;
      throw ofcv::Error("dynamics", "finite energies and forces",
                        "NaN or infinity at step " + std::to_string(context_->getStepCount()) +
                            ": they diverged, try a shorter --timestep (" + reason + ")");
    }
  }
  OpenMM::State state() const {
    return context_->getState(OpenMM::State::Positions | OpenMM::State::Energy);
  }
  double bias_energy() const {
    if (!bias_group_) return 0;
    return context_->getState(OpenMM::State::Energy, false, 1 << *bias_group_).getPotentialEnergy();
  }

 private:
  void add_bias(const Arguments& arguments) {
    auto force = std::make_unique<ofcv::OpenMMForce>(
        arguments.bias,
        ofcv::OpenMMOptions{.parameters = arguments.parameters, .device = arguments.device});
    bias_group_ = free_group(*system_);
    force->setForceGroup(*bias_group_);
    system_->addForce(force.release());
  }

  void start(const Arguments& arguments) {
    const auto state = read_xml<OpenMM::State>("--state", arguments.state, "State");
    if ((state->getDataTypes() & OpenMM::State::Positions) == 0) {
      throw ofcv::Error("--state", "a state with positions", "'" + arguments.state + "'");
    }
    const std::size_t n_positions = state->getPositions().size();
    if (n_positions != static_cast<std::size_t>(n_atoms())) {
      throw ofcv::Error("--state", "the system's " + std::to_string(n_atoms()) + " atoms",
                        std::to_string(n_positions));
    }
    OpenMM::Vec3 a, b, c;
    state->getPeriodicBoxVectors(a, b, c);
    context_->setPeriodicBoxVectors(a, b, c);
    context_->setTime(state->getTime());
    context_->setPositions(state->getPositions());
    if (state->getDataTypes() & OpenMM::State::Velocities) {
      context_->setVelocities(state->getVelocities());
    } else {
      context_->setVelocitiesToTemperature(arguments.temperature, arguments.seed);
    }
  }

  std::unique_ptr<OpenMM::System> system_;
  std::unique_ptr<OpenMM::Integrator> integrator_;
  std::unique_ptr<OpenMM::Context> context_;
  std::optional<int> bias_group_;
};

/// Where the energies and positions of a run go.
class Recorder {
 public:
  Recorder(const Arguments& arguments, const Simulation& simulation) {
    if (!arguments.energies.empty()) {
      energies_ = &files_.open(arguments.energies);
      *energies_ << "step,time,potential,kinetic,bias\n";
    }
    if (!arguments.positions.empty()) {
      positions_ = &files_.open(arguments.positions);
      const std::int64_t n_frames = arguments.steps / arguments.interval + 1;
      npy::write_header(*positions_, ofcv::DType::float64, {n_frames, simulation.n_atoms(), 3});
    }
  }

  void record(int step, const Simulation& simulation) {
    const OpenMM::State state = simulation.state();
    if (energies_ != nullptr) {
      char line[160];
      std::snprintf(line, sizeof line, "%d,%.9g,%.17g,%.17g,%.17g\n", step, state.getTime(),
                    state.getPotentialEnergy(), state.getKineticEnergy(), simulation.bias_energy());
      *energies_ << line;
    }
    if (positions_ != nullptr) {
      const std::vector<OpenMM::Vec3>& positions = state.getPositions();
      positions_->write(reinterpret_cast<const char*>(positions.data()),
                        static_cast<std::streamsize>(positions.size() * sizeof(OpenMM::Vec3)));
    }
  }

  void finish() { files_.commit(); }

 private:
  OutputFiles files_;
  std::ostream* energies_ = nullptr;
  std::ostream* positions_ = nullptr;
};

/// A line on the terminal that follows the run; nothing where stderr is no terminal.
class Progress {
 public:
  explicit Progress(int n_steps) : n_steps_(n_steps) {}
  ~Progress() {
    if (last_ != start_) std::fprintf(stderr, "\r\033[K");
  }

  void update(int step) {
    if (!is_terminal_ || step == 0 || seconds_since(last_) < 1.0) return;
    const double left = seconds_since(start_) / step * (n_steps_ - step);
    std::fprintf(stderr, "\r\033[Kstep %d of %d, %.0f s left", step, n_steps_, left);
    last_ = Clock::now();
  }

 private:
  int n_steps_;
  bool is_terminal_ = ::isatty(STDERR_FILENO) != 0;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_;
};

/// Runs the dynamics; returns the wall time of a step in microseconds, reports left out.
double run_dynamics(const Arguments& arguments, Simulation& simulation) {
  Recorder recorder(arguments, simulation);
  Progress progress(arguments.steps);
  double seconds = 0;
  recorder.record(0, simulation);
  for (int step = 0; step < arguments.steps;) {
    const int n_steps = std::min(arguments.interval, arguments.steps - step);
    const auto start = Clock::now();
    simulation.step(n_steps);
    seconds += seconds_since(start);
    step += n_steps;
    if (step % arguments.interval == 0) recorder.record(step, simulation);
    progress.update(step);
  }
  recorder.finish();
  return 1e6 * seconds / arguments.steps;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

/// Median wall times of a step without and with the bias, in microseconds, measured by turns. Each
/// step is timed on its own: other programs on the machine disturb some, but not the median.
std::pair<double, double> time_by_turns(const Arguments& arguments, Simulation& biased) {
  Simulation unbiased(arguments, false);
  const int n_steps = std::max(1, arguments.timed_steps / n_turns);
  const auto time_steps = [&](Simulation& simulation, std::vector<double>& times) {
    for (int step = 0; step < n_steps; ++step) {
      const auto start = Clock::now();
      simulation.step(1);
      times.push_back(1e6 * seconds_since(start));
    }
  };
  std::vector<double> without, with;
  for (int turn = 0; turn < n_turns; ++turn) {
    time_steps(unbiased, without);
    time_steps(biased, with);
  }
  return {median(std::move(without)), median(std::move(with))};
}

int run(const Options& options) {
  const Arguments arguments(options);
#ifndef OFCV_WITHOUT_TORCH
  at::set_num_threads(arguments.threads);
  at::set_num_interop_threads(arguments.threads);
#endif
  const char* plugins = std::getenv("OPENMM_PLUGIN_DIR");
  OpenMM::Platform::loadPluginsFromDirectory(plugins ? plugins : OFCV_OPENMM_PLUGINS);

  Simulation simulation(arguments, !arguments.bias.empty());
  std::printf("system   %s: %d atoms, OpenMM %s on %s\n", arguments.system.c_str(),
              simulation.n_atoms(), OpenMM::Platform::getOpenMMVersion().c_str(),
              arguments.platform.c_str());
  if (!arguments.bias.empty()) {
    std::printf("bias     %s (%s)\n", arguments.bias.c_str(),
                ofcv::read_metadata(arguments.bias).format.c_str());
  }
  const double microseconds = run_dynamics(arguments, simulation);
  std::printf("run      %d steps of %g fs with %s, %.1f us a step\n", arguments.steps,
              arguments.timestep, arguments.integrator.c_str(), microseconds);
  for (const std::string& path : {arguments.energies, arguments.positions}) {
    if (!path.empty()) std::printf("written  %s\n", path.c_str());
  }
  if (arguments.timed_steps > 0) {
    const auto [without, with] = time_by_turns(arguments, simulation);
    std::printf("timing   %.2f us a step without the bias, %.2f with it, %.2f more (%.2f times)\n",
                without, with, with - without, with / without);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_program("ofcv_openmm", usage, argc, argv, run); }
