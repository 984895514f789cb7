#pragma once

#include <string_view>

namespace lathe::engines {

/// The static program that is the first of every container (see init/first.cpp), as a file's bytes.
std::string_view first_program();

}  // namespace lathe::engines
