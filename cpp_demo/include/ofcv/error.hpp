#pragma once

#include <stdexcept>
#include <string>

namespace ofcv {

/// What every function of this library throws. The message is one line and reads
/// `<argument>: expected <what>, got <what came>`, as in the Python package.
class Error : public std::runtime_error {
 public:
  Error(const std::string& argument, const std::string& expected, const std::string& got)
      : std::runtime_error(argument + ": expected " + expected + ", got " + got) {}
  /// Such a line that somebody else wrote.
  explicit Error(const std::string& line) : std::runtime_error(line) {}
};

}  // namespace ofcv
