#pragma once

#include <charconv>
#include <cmath>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "ofcv/engine_bias.hpp"
#include "ofcv/error.hpp"

/// The command line of ofcv_openmm.
struct OpenMMArguments {
  std::string system;
  std::string state;
  std::string bias;
  ofcv::Parameters parameters;
  std::string device = "cpu";
  std::string platform = "Reference";
  std::string integrator = "verlet";
  double timestep = 1.0;
  double temperature = 300.0;
  double friction = 1.0;
  int seed = 1;
  long long steps = 1000;
  long long interval = 100;
  std::string energies;
  std::string positions;
  long long timed_steps = 0;
  int threads = 1;
  bool help = false;

  static constexpr const char* usage =
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

  static OpenMMArguments parse(const std::vector<std::string>& words) {
    OpenMMArguments arguments;
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::string& option = words[i];
      const auto value = [&]() -> const std::string& {
        if (i + 1 == words.size() || words[i + 1].empty()) {
          throw ofcv::Error(option, "a value", "nothing");
        }
        return words[++i];
      };
      if (option == "--help" || option == "-h") {
        arguments.help = true;
      } else if (option == "--system") {
        arguments.system = value();
      } else if (option == "--state") {
        arguments.state = value();
      } else if (option == "--bias") {
        arguments.bias = value();
      } else if (option == "--parameter") {
        arguments.parameters.insert(parameter(option, value()));
      } else if (option == "--device") {
        arguments.device = value();
      } else if (option == "--platform") {
        arguments.platform = value();
      } else if (option == "--integrator") {
        arguments.integrator = value();
      } else if (option == "--timestep") {
        arguments.timestep = positive(option, value());
      } else if (option == "--temperature") {
        arguments.temperature = positive(option, value());
      } else if (option == "--friction") {
        arguments.friction = positive(option, value());
      } else if (option == "--seed") {
        arguments.seed = static_cast<int>(count(option, value()));
      } else if (option == "--steps") {
        arguments.steps = count(option, value());
      } else if (option == "--interval") {
        arguments.interval = count(option, value());
      } else if (option == "--energies") {
        arguments.energies = value();
      } else if (option == "--positions") {
        arguments.positions = value();
      } else if (option == "--timed-steps") {
        arguments.timed_steps = count(option, value());
      } else if (option == "--threads") {
        arguments.threads = static_cast<int>(count(option, value()));
      } else {
        throw ofcv::Error("arguments", "an option that --help lists", "'" + option + "'");
      }
    }
    if (!arguments.help) arguments.require_complete();
    return arguments;
  }

 private:
  void require_complete() const {
    if (system.empty()) throw ofcv::Error("--system", "a file", "nothing");
    if (state.empty()) throw ofcv::Error("--state", "a file", "nothing");
    if (integrator != "verlet" && integrator != "langevin") {
      throw ofcv::Error("--integrator", "verlet or langevin", "'" + integrator + "'");
    }
    if (bias.empty() && (!parameters.empty() || timed_steps > 0)) {
      throw ofcv::Error("--bias", "a file for --parameter and --timed-steps", "nothing");
    }
  }

  /// NAME=X or NAME=X,Y,...
  static std::pair<std::string, std::vector<double>> parameter(const std::string& option,
                                                               const std::string& text) {
    const std::size_t equals = text.find('=');
    if (equals == text.npos || equals == 0) {
      throw ofcv::Error(option, "NAME=NUMBER[,NUMBER]", "'" + text + "'");
    }
    std::vector<double> values;
    for (std::size_t start = equals + 1; start <= text.size();) {
      const std::size_t comma = std::min(text.find(',', start), text.size());
      values.push_back(number(option, text.substr(start, comma - start)));
      start = comma + 1;
    }
    return {text.substr(0, equals), values};
  }

  static double number(const std::string& option, const std::string& text) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) {
      throw ofcv::Error(option, "a number", "'" + text + "'");
    }
    return value;
  }

  static double positive(const std::string& option, const std::string& text) {
    const double value = number(option, text);
    if (value <= 0) throw ofcv::Error(option, "a positive number", "'" + text + "'");
    return value;
  }

  static long long count(const std::string& option, const std::string& text) {
    long long value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < 1 ||
        value > 2'000'000'000) {
      throw ofcv::Error(option, "an integer from 1 to 2000000000", "'" + text + "'");
    }
    return value;
  }
};
