// Parses metadata, one JSON document a line. Usage: parse_metadata FILE. Prints `accepted` or the
// error for each, and returns 2 if there was an error.

#include <fstream>
#include <iostream>
#include <string>

#include "ofcv/error.hpp"
#include "ofcv/metadata.hpp"

int main(int argc, char** argv) {
  std::ifstream stream(argc == 2 ? argv[1] : "");
  int code = stream ? 0 : 1;
  for (std::string line; std::getline(stream, line);) {
    try {
      ofcv::Metadata::parse(line);
      std::cout << "accepted\n";
    } catch (const ofcv::Error& error) {
      std::cout << error.what() << "\n";
      code = 2;
    }
  }
  return code;
}
