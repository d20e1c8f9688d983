#pragma once

#ifndef OFCV_WITHOUT_TORCH
#include <c10/util/Logging.h>
#endif

#include <filesystem>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>

#include "ofcv/error.hpp"

// LibTorch has a macro of that name, which ends the program.
#undef CHECK
/// Ends a test with what did not hold and where.
#define CHECK(condition) check::require((condition), __FILE__, __LINE__, #condition)

/// `statement` must throw an ofcv::Error with exactly this message.
#define CHECK_ERROR(statement, message) \
  check::require_error([&] { (void)(statement); }, message, false, __FILE__, __LINE__)

/// `statement` must throw an ofcv::Error of one line that begins like this.
#define CHECK_ERROR_BEGINS(statement, message) \
  check::require_error([&] { (void)(statement); }, message, true, __FILE__, __LINE__)

namespace check {

/// What a test throws that needs something that is not here.
struct Skipped : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The exit status of a program whose only test was skipped: SKIP_RETURN_CODE of CTest.
constexpr int skipped = 77;

inline void require(bool holds, const char* file, int line, const std::string& what) {
  if (!holds) throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <typename Statement>
void require_error(Statement statement, const std::string& message, bool is_beginning,
                   const char* file, int line) {
  std::string found = "none";
  try {
    statement();
  } catch (const ofcv::Error& error) {
    found = error.what();
    const bool is_line = found.find('\n') == found.npos;
    if (is_beginning ? found.starts_with(message) && is_line : found == message) return;
  }
  require(false, file, line, "expected the error\n  " + message + "\ngot\n  " + found);
}

/// What a test program's main does. Usage: PROGRAM FOLDER [NAME]: all tests on a folder, or one.
inline int run(int argc, char** argv,
               const std::map<std::string, void (*)(const std::filesystem::path&)>& tests) {
  const std::string only = argc == 3 ? argv[2] : "";
  int n_run = 0, n_skipped = 0;
  for (const auto& [name, test] : tests) {
    if (argc < 2 || !(only.empty() || name == only)) continue;
    try {
      test(argv[1]);
      ++n_run;
    } catch (const Skipped& reason) {
      std::cerr << name << ": skipped, " << reason.what() << "\n";
      ++n_skipped;
    } catch (const std::exception& error) {
      std::cerr << name << ": " << error.what() << "\n";
      return 1;
    }
  }
  if (n_run > 0) return 0;
  return n_skipped > 0 ? skipped : 1;
}

}  // namespace check
