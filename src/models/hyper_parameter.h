#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/fields.h"

namespace lathe::models {

/// One line of a model's template of hyper-parameters, as the documented API has it.
struct HyperParameter {
  std::optional<bool> edit;
  std::string paramName;
  std::string type;
  std::string value;
  std::vector<std::int64_t> valueRange;
};
inline void fields(Fields& f, HyperParameter& p) {
  f.field("edit", p.edit, {.doc = "是否可编辑"});
  f.field("paramName", p.paramName,
          {.doc = "参数名称", .required = true, .max_length = 128, .form = Form::option});
  f.field("type", p.type, {.doc = "类型", .max_length = 64, .form = Form::line});
  f.field("value", p.value, {.doc = "默认值", .max_length = 4096});
  f.field("valueRange", p.valueRange, {.doc = "取值范围", .max_items = 100});
}

}  // namespace lathe::models
