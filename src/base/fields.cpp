#include "base/fields.h"

namespace lathe {

void Fields::refuse(std::string_view, Text) {}

}  // namespace lathe
