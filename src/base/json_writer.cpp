#include <fmt/format.h>

#include <boost/json.hpp>
#include <cmath>
#include <iterator>

#include "base/json.h"

namespace lathe::json {

namespace {

/// RFC 8259 §7: what must be escaped, and nothing else.
void append_quoted(std::string& out, std::string_view text) {
  out += '"';
  std::size_t plain = 0;  // where what needs no escape began
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out.append(text, plain, i - plain);
    plain = i + 1;
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        fmt::format_to(std::back_inserter(out), "\\u{:04x}", c);
    }
  }
  out.append(text, plain);
  out += '"';
}

/// Straight into the text: an answer is written once and never looked at again.
class Writer final : public Fields {
 public:
  explicit Writer(TimeStyle style) : style_(style) {}

  std::string take() && {
    if (out_.empty()) out_ = "null";
    return std::move(out_);
  }

  bool reading() const override { return false; }
  bool enter(std::string_view name, const Rule&, bool) override {
    separate();
    out_ += '"';
    out_ += name;
    out_ += "\":";
    begun_.push_back(out_.size());
    return true;
  }
  void leave() override { null_unless_written(); }
  bool enter_embedded() override {
    begun_.push_back(out_.size());
    return true;
  }
  void leave_embedded() override {
    const std::size_t begun = begun_.back();
    null_unless_written();
    const std::string text = out_.substr(begun);
    out_.resize(begun);
    append_quoted(out_, text);
  }
  void on_bool(bool& value, const Rule&) override { out_ += value ? "true" : "false"; }
  void on_integer(std::int64_t& value, const Rule&) override { out_ += fmt::format_int(value).c_str(); }
  void on_number(double& value, const Rule&) override {
    if (!std::isfinite(value)) {
      out_ += "null";
      return;
    }
    const std::size_t begun = out_.size();
    fmt::format_to(std::back_inserter(out_), "{}", value);
    // Still a number with a fraction to readers who tell the two apart.
    if (out_.find_first_of(".e", begun) == std::string::npos) out_ += ".0";
  }
  void on_text(std::string& value, const Rule&) override { append_quoted(out_, value); }
  void on_time(Time& value, const Rule&) override {
    append_quoted(out_, style_ == TimeStyle::local ? format_local(value) : format_iso(value));
  }
  void on_json(Json& value, const Rule&) override { out_ += boost::json::serialize(value); }
  void begin_object() override { out_ += '{'; }
  void end_object() override { out_ += '}'; }
  std::size_t begin_list(std::size_t size, const Rule&) override {
    out_ += '[';
    return size;
  }
  bool enter_item(std::size_t) override {
    separate();
    begun_.push_back(out_.size());
    return true;
  }
  void leave_item() override { null_unless_written(); }
  void end_list() override { out_ += ']'; }
  bool on_optional(bool has_value) override { return has_value; }

 private:
  void separate() {
    if (!out_.empty() && out_.back() != '{' && out_.back() != '[') out_ += ',';
  }
  void null_unless_written() {
    if (out_.size() == begun_.back()) out_ += "null";
    begun_.pop_back();
  }

  TimeStyle style_;
  std::string out_;
  std::vector<std::size_t> begun_;  ///< where the values that are being written began
};

}  // namespace

std::string write_fields(const void* source, void (*visit)(Fields&, void*), TimeStyle style) {
  Writer writer(style);
  visit(writer, const_cast<void*>(source));  // a visitor that writes never changes the struct
  return std::move(writer).take();
}

}  // namespace lathe::json
