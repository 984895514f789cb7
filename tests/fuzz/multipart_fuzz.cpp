// Forms: whatever the bytes and however they arrive, the reader sees the same parts.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "http/multipart.h"

namespace {

using namespace lathe::http;

class TextBody final : public BodyReader {
 public:
  TextBody(std::string_view text, std::size_t piece) : rest_(text), piece_(piece) {}
  lathe::Result<std::size_t> read(std::span<char> into) override {
    const auto size = std::min({piece_, into.size(), rest_.size()});
    std::copy_n(rest_.data(), size, into.data());
    rest_.remove_prefix(size);
    return size;
  }
  std::optional<std::uint64_t> length() const override { return std::nullopt; }

 private:
  std::string_view rest_;
  std::size_t piece_;
};

/// Everything the form says, as one text.
lathe::Result<std::string> meaning(std::string_view text, std::size_t piece) {
  TextBody body(text, piece);
  auto form = TRY(MultipartReader::open(body, "multipart/form-data; boundary=b-b", {.max_parts = 20}));
  std::string out;
  while (auto part = TRY(form.next_part())) {
    out += "[" + part->name + "|" + part->filename.value_or("") + "|" + part->content_type + "]";
    if (out.size() % 3 == 0) continue;
    for (auto some = TRY(form.read()); !some.empty(); some = TRY(form.read())) out += some;
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto whole = meaning(text, SIZE_MAX), pieces = meaning(text, data[0] % 80 + 1u);
  if (whole.ok() != pieces.ok()) std::abort();
  if (whole.ok() && *whole != *pieces) std::abort();
  return 0;
}
