#include "jobs/plan/command.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "base/text_form.h"
#include "jobs/plan/environment.h"

namespace lathe::jobs {

namespace {

bool is_word_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool is_word(char c) {
  return is_word_start(c) || (c >= '0' && c <= '9');
}
bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

std::string_view leading_name(std::string_view text) {
  if (text.empty() || !is_word_start(text[0])) return {};
  std::size_t end = 1;
  while (end < text.size() && is_word(text[end])) ++end;
  return text.substr(0, end);
}

/// The variables a line sets by itself: `x=…`, `for x in`, `read x`, `getopts … x`.
std::set<std::string, std::less<>> names_set_by(std::string_view line) {
  std::set<std::string, std::less<>> out;
  std::string_view verb;
  for (std::size_t i = 0; i < line.size();) {
    if (std::string_view(" \t\r\n;&|(){}`\"").find(line[i]) != std::string_view::npos) {
      if (line[i] == '\n' || line[i] == ';') verb = {};
      ++i;
      continue;
    }
    std::size_t end = i;
    while (end < line.size() && std::string_view(" \t\r\n;&|()`").find(line[end]) == std::string_view::npos)
      ++end;
    const auto token = line.substr(i, end - i);
    const auto name = leading_name(token);
    if (!name.empty() && name.size() < token.size() && token[name.size()] == '=') out.emplace(name);
    if (!verb.empty() && name.size() == token.size()) {
      out.emplace(name);
      if (verb == "for") verb = {};
    }
    if (token == "for" || token == "read" || token == "getopts") verb = token;
    i = end;
  }
  return out;
}

/// Walks a shell line just closely enough to know, at every `${`, how the shell would quote there. Where it
/// errs (`case` patterns inside `$(…)`), values still only ever come in by the shell's own expansion, which
/// never makes a second command of them.
class Scanner {
 public:
  Scanner(std::string_view text, std::span<const Placeholder> known, std::span<const std::string> environment,
          std::string_view field)
      : text_(text), known_(known), environment_(environment), field_(field), set_here_(names_set_by(text)) {}

  Result<PreparedCommand> run() {
    while (at_ < text_.size()) TRY(step());
    finish();
    return std::move(out_);
  }

 private:
  enum class Context { code, group, substitution, backtick, quotes, arithmetic };

  bool in_code() const {
    return context() == Context::code || context() == Context::group || context() == Context::substitution ||
           context() == Context::backtick;
  }
  Context context() const { return stack_.empty() ? Context::code : stack_.back(); }
  char peek(std::size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool next_is(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  void copy(std::size_t count) {
    out_.line += text_.substr(at_, count);
    at_ += count;
  }
  void enter(Context context, std::size_t count) {
    stack_.push_back(context);
    copy(count);
  }
  void leave(std::size_t count) {
    stack_.pop_back();
    copy(count);
  }

  Result<void> step() {
    const char c = peek();
    if (c == '\\') return copy(std::min<std::size_t>(2, text_.size() - at_)), Result<void>{};
    if (c == '$') return dollar();
    if (c == '`') {
      context() == Context::backtick ? leave(1) : enter(Context::backtick, 1);
      return {};
    }
    if (context() == Context::quotes) {
      c == '"' ? leave(1) : copy(1);
      return {};
    }
    if (context() == Context::arithmetic) return arithmetic();
    return code();
  }

  Result<void> code() {
    const char c = peek();
    if (c == '\'') return single_quotes();
    if (c == '"') return enter(Context::quotes, 1), Result<void>{};
    if (c == '(') return enter(Context::group, 1), Result<void>{};
    if (c == ')' && (context() == Context::group || context() == Context::substitution))
      return leave(1), Result<void>{};
    if (c == '#' && starts_word()) return comment();
    if (next_is("<<") && peek(2) != '<') return here_document();
    if (c == '\n' && !here_ends_.empty()) return here_bodies();
    copy(1);
    return {};
  }

  Result<void> arithmetic() {
    if (next_is("))")) return leave(2), Result<void>{};
    copy(1);
    return {};
  }

  bool starts_word() const {
    return at_ == 0 || std::string_view(" \t\n;&|()").find(text_[at_ - 1]) != std::string_view::npos;
  }

  Result<void> comment() {
    const auto end = std::min(text_.find('\n', at_), text_.size());
    copy(end - at_);
    ends_in_comment_ = at_ == text_.size();
    return {};
  }

  Result<void> single_quotes() {
    const auto end = text_.find('\'', at_ + 1);
    const auto stop = end == std::string_view::npos ? text_.size() : end + 1;
    TRY(look_through(text_.substr(at_, stop - at_), false));
    unfinished_ = end == std::string_view::npos;
    copy(stop - at_);
    return {};
  }

  /// Text that is copied as it is, but whose `${…}` count as used. In single quotes they are for an inner
  /// shell, whose variables nobody here knows.
  Result<void> look_through(std::string_view body, bool expanded) {
    for (std::size_t i = body.find("${"); i != std::string_view::npos; i = body.find("${", i + 2)) {
      const auto end = body.find('}', i);
      if (end == std::string_view::npos) break;
      const auto inner = body.substr(i + 2, end - i - 2);
      if (const auto* placeholder = find(inner)) {
        if (!is_exported(placeholder->name)) return cannot_stand_here(inner);
        note_use(inner);
      } else if (expanded) {
        TRY(check_plain(inner));
      }
    }
    return {};
  }

  Result<void> dollar() {
    if (next_is("$((")) return enter(Context::arithmetic, 3), Result<void>{};
    if (next_is("$(")) return enter(Context::substitution, 2), Result<void>{};
    if (next_is("${")) return placeholder();
    if (peek(1) == '@' || peek(1) == '*') out_.takes_arguments = true;
    copy(1);
    if (std::string_view("@*#?$!-0123456789").find(peek()) != std::string_view::npos) copy(1);
    return {};
  }

  Result<void> placeholder() {
    const auto end = closing_brace();
    if (end == std::string_view::npos) return wrong({"${ 没有对应的 }", "has a ${ without its }"});
    const auto whole = text_.substr(at_, end + 1 - at_);
    const auto inner = whole.substr(2, whole.size() - 3);
    at_ = end + 1;
    if (const auto* placeholder = find(inner)) {
      note_use(inner);
      return write_value(*placeholder, whole);
    }
    TRY(check_plain(inner));
    const auto name = leading_name(inner);
    if (find(name)) note_use(name);
    const bool quote = in_code() && find(name) != nullptr;
    out_.line += quote ? fmt::format("\"{}\"", whole) : std::string(whole);
    return {};
  }

  Result<void> write_value(const Placeholder& placeholder, std::string_view whole) {
    if (is_exported(placeholder.name)) {
      out_.line += in_code() ? fmt::format("\"{}\"", whole) : std::string(whole);
    } else if (in_code()) {
      out_.line += single_quoted(placeholder.value);
    } else if (context() == Context::quotes) {
      out_.line += '"' + single_quoted(placeholder.value) + '"';
    } else {
      return cannot_stand_here(placeholder.name);
    }
    return {};
  }

  /// A `${…}` that is not a placeholder: the shell's, if it is something the shell will know.
  Result<void> check_plain(std::string_view inner) {
    if (inner.starts_with('#') && inner.size() > 1) inner.remove_prefix(1);
    if (inner == "@" || inner == "*") out_.takes_arguments = true;
    if (inner.size() == 1 && std::string_view("@*#?-$!0123456789").find(inner[0]) != std::string_view::npos)
      return {};
    const auto name = leading_name(inner);
    const auto rest = inner.substr(name.size());
    const bool has_default =
        rest.starts_with(":-") || rest.starts_with(":=") || rest.starts_with(":+") || rest.starts_with(":?");
    const bool has_operator =
        rest.empty() || std::string_view("-=+?%#:").find(rest[0]) != std::string_view::npos;
    if (!name.empty() && has_operator && (has_default || is_variable(name))) return {};
    return wrong({fmt::format("含有未知的占位符 ${{{}}}；可用的有：{}", inner, choices()),
                  fmt::format("has an unknown placeholder ${{{}}}; known are: {}", inner, choices())});
  }

  bool is_variable(std::string_view name) const {
    return find(name) != nullptr || set_here_.contains(name) || is_platform_variable(name) ||
           std::find(environment_.begin(), environment_.end(), name) != environment_.end();
  }

  std::string choices() const {
    std::string out;
    for (const auto& each : known_) out += (out.empty() ? "" : ", ") + each.name;
    return out;
  }

  Result<void> cannot_stand_here(std::string_view name) const {
    return wrong(
        {fmt::format("${{{}}} 不能用在此处（单引号、算术或 here-document 内）", name),
         fmt::format("cannot have ${{{}}} here (within single quotes, arithmetic or a here-document)",
                     name)});
  }
  Error wrong(Text text) const { return invalid_field(std::string(field_), std::move(text)); }

  const Placeholder* find(std::string_view name) const {
    const auto at =
        std::find_if(known_.begin(), known_.end(), [&](const auto& each) { return each.name == name; });
    return at == known_.end() ? nullptr : &*at;
  }

  void note_use(std::string_view name) {
    if (std::find(out_.used.begin(), out_.used.end(), name) == out_.used.end()) out_.used.emplace_back(name);
  }

  std::size_t closing_brace() const {
    int depth = 0;
    for (std::size_t i = at_ + 1; i < text_.size(); ++i) {
      if (text_[i] == '\\')
        ++i;
      else if (text_[i] == '{')
        ++depth;
      else if (text_[i] == '}' && --depth == 0)
        return i;
    }
    return std::string_view::npos;
  }

  Result<void> here_document() {
    copy(2);
    const bool strips_tabs = peek() == '-';
    if (strips_tabs) copy(1);
    while (is_blank(peek())) copy(1);
    std::string word;
    bool quoted = false;
    while (at_ < text_.size() && std::string_view(" \t\n;&|<>()").find(peek()) == std::string_view::npos) {
      if (peek() == '\'' || peek() == '"' || peek() == '\\')
        quoted = true;
      else
        word += peek();
      copy(1);
    }
    here_ends_.push_back({word, quoted, strips_tabs});
    has_here_document_ = true;
    return {};
  }

  Result<void> here_bodies() {
    copy(1);
    for (const auto& end : here_ends_) {
      const auto start = at_;
      auto stop = text_.size();
      for (std::size_t line = at_; line < text_.size();) {
        const auto eol = std::min(text_.find('\n', line), text_.size());
        auto content = text_.substr(line, eol - line);
        while (end.strips_tabs && content.starts_with('\t')) content.remove_prefix(1);
        line = std::min(eol + 1, text_.size());
        if (content != end.word) continue;
        stop = line;
        break;
      }
      if (!end.quoted) TRY(look_through(text_.substr(start, stop - start), true));
      copy(stop - start);
    }
    here_ends_.clear();
    return {};
  }

  /// Appends "$@" where the line's last command can take it.
  void finish() {
    if (out_.takes_arguments || !stack_.empty() || unfinished_ || ends_in_comment_ || has_here_document_)
      return;
    auto end = out_.line.size();
    while (end > 0 && (is_blank(out_.line[end - 1]) || out_.line[end - 1] == '\n')) --end;
    if (end == 0 || std::string_view("\\;&|(){}<>").find(out_.line[end - 1]) != std::string_view::npos)
      return;
    auto word = end;
    while (word > 0 && is_word(out_.line[word - 1])) --word;
    const auto last = std::string_view(out_.line).substr(word, end - word);
    for (std::string_view reserved : {"done", "fi", "esac", "then", "do", "else"})
      if (last == reserved) return;
    out_.line.resize(end);
    out_.line += " \"$@\"";
    out_.takes_arguments = true;
  }

  struct HereEnd {
    std::string word;
    bool quoted;
    bool strips_tabs;
  };

  std::string_view text_;
  std::span<const Placeholder> known_;
  std::span<const std::string> environment_;
  std::string_view field_;
  std::set<std::string, std::less<>> set_here_;
  std::size_t at_ = 0;
  std::vector<Context> stack_;
  std::vector<HereEnd> here_ends_;
  bool has_here_document_ = false;
  bool ends_in_comment_ = false;
  bool unfinished_ = false;
  PreparedCommand out_;
};

}  // namespace

bool is_exported(std::string_view placeholder_name) {
  return !violates(Form::variable, placeholder_name) && !is_platform_variable(placeholder_name) &&
         !is_forbidden_variable(placeholder_name);
}

std::string single_quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'')
      out += "'\\''";
    else
      out += c;
  }
  return out + "'";
}

Result<PreparedCommand> prepare_command(std::string_view command, std::span<const Placeholder> known,
                                        std::span<const std::string> environment, std::string_view field) {
  return Scanner(command, known, environment, field).run();
}

std::string line_of(std::span<const std::string> words) {
  std::string out;
  for (const auto& word : words) {
    if (!out.empty()) out += ' ';
    out += '"';
    for (std::size_t i = 0; i < word.size(); ++i) {
      const bool placeholder = word.substr(i, 2) == "${";
      if (!placeholder && std::string_view("\"\\$`").find(word[i]) != std::string_view::npos) out += '\\';
      out += word[i];
    }
    out += '"';
  }
  return out;
}

}  // namespace lathe::jobs
