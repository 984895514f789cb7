#pragma once

#include <optional>
#include <string>
#include <vector>

#include "algorithms/algorithms.h"
#include "base/fields.h"

/// One description of an algorithm for the files it is read from and the answers it is shown in.
namespace lathe::algorithms::wire {

struct Words {
  Text& text;
};
inline void fields(Fields& f, Words& words) {
  f.field("zh", words.text.zh, {.required = true, .max_length = 2000});
  f.field("en", words.text.en, {.required = true, .max_length = 2000});
}
inline void text_field(Fields& f, std::string_view name, Text& text, const Rule& rule) {
  if (!f.enter(name, rule, false)) return;
  Words words{text};
  f.visit(words, rule);
  f.leave();
}

}  // namespace lathe::algorithms::wire

namespace lathe::algorithms {

inline void fields(Fields& f, Parameter& p) {
  f.field("name", p.name, {.required = true, .max_length = 64, .form = Form::option});
  f.field("type", p.type, {.required = true, .one_of = "integer|number|text|boolean|switch|words"});
  f.field("group", p.group, {.doc = "As the documented config.json groups them", .one_of = "common|tuning"});
  f.field("default", p.value, {.doc = "Empty: not passed unless given", .max_length = 4096});
  f.field("argument", p.argument,
          {.doc = "What the program calls it, where that is not its name",
           .max_length = 128,
           .form = Form::option});
  f.field("required", p.required);
  f.field("min", p.min);
  f.field("max", p.max);
  f.field("choices", p.choices, {.doc = "The only values allowed", .max_items = 100});
  wire::text_field(f, "description", p.description, {.required = true});
}

inline void fields(Fields& f, EnvVar& v) {
  f.field("name", v.name, {.required = true, .form = Form::variable});
  f.field("value", v.value, {.max_length = 4096});
}

inline void fields(Fields& f, OptionalWords& o) {
  f.field("when", o.when,
          {.doc = "The placeholder that must be there", .required = true, .form = Form::option});
  f.field("words", o.words, {.max_length = 4096});
}

inline void fields(Fields& f, Match& m) {
  f.field("formats", m.formats);
  f.field("architectures", m.architectures, {.doc = "A `*` at either end fits anything"});
  f.field("tokenizer", m.tokenizer, {.doc = "Whether the model has a tokenizer's files"});
}

}  // namespace lathe::algorithms

namespace lathe::algorithms::wire {

/// As it stands in a file, and as it is shown.
struct Definition {
  Algorithm algorithm;
  std::string kind;
  std::string code;  ///< folder below the root of the algorithms' code
};
inline void fields(Fields& f, Definition& d) {
  Algorithm& a = d.algorithm;
  f.field("id", a.id, {.required = true, .max_length = 64, .form = Form::id});
  f.field("kind", d.kind, {.required = true, .one_of = "fine_tune|pretrain|modelling|evaluation|serving"});
  text_field(f, "name", a.name, {.required = true});
  text_field(f, "description", a.description, {.required = true});
  f.field("image", a.image,
          {.doc = "Where the request names none; host: this machine's software", .form = Form::name});
  f.field("code", d.code, {.doc = "Folder of its own code, seen as ${algorithm_dir}", .form = Form::id});
  f.field("command", a.command, {.doc = "The words of the command", .required = true, .max_length = 4096});
  f.field("options", a.options, {.doc = "Words that follow where what they speak of is there"});
  f.field("arguments", a.arguments,
          {.doc = "How the other hyper-parameters follow", .one_of = "flags|assignments|none"});
  f.field("env", a.env);
  f.field("needs", a.needs, {.doc = "Directories that a request must give"});
  f.field("strategies", a.strategies, {.doc = "Fine-tuning strategies it knows"});
  f.field("parameters", a.parameters);
  f.field("match", a.match, {.doc = "The models that a serving algorithm fits"});
  f.field("port", a.port, {.doc = "Where a serving algorithm listens", .min = 0, .max = 65535});
  f.field("readyPath", a.ready_path, {.doc = "Answers 200 once it can serve", .form = Form::line});
}

struct ById {
  std::string id;
};
inline void fields(Fields& f, ById& in) {
  f.field("id", in.id, {.required = true, .max_length = 64, .form = Form::id});
}

struct ListIn {
  std::string kind;
};
inline void fields(Fields& f, ListIn& in) {
  f.field("kind", in.kind, {.one_of = "fine_tune|pretrain|modelling|evaluation|serving"});
}

}  // namespace lathe::algorithms::wire
