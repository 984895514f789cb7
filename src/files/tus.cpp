#include "files/tus.h"

#include <openssl/evp.h>

#include <charconv>
#include <ctime>

#include "base/base64.h"

namespace lathe::files::tus {

namespace {

std::string_view next_part(std::string_view& text, char separator) {
  const auto end = text.find(separator);
  const auto part = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return part;
}

}  // namespace

Result<std::int64_t> parse_count(std::string_view text, std::string_view field) {
  std::int64_t count = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || end != text.data() + text.size() || count < 0 || text.empty())
    return invalid_field(std::string(field), {"应为非负整数", "must be a whole number that is not negative"});
  return count;
}

Result<std::map<std::string, std::string>> parse_metadata(std::string_view text) {
  const Error bad = invalid_field("Upload-Metadata", {"格式有误：应为“键 BASE64”，以逗号分隔",
                                                      "must be `key BASE64` pairs separated by commas"});
  std::map<std::string, std::string> out;
  if (text.size() > 16384) return bad;
  while (!text.empty()) {
    std::string_view pair = next_part(text, ',');
    while (pair.starts_with(' ')) pair.remove_prefix(1);
    while (pair.ends_with(' ')) pair.remove_suffix(1);
    const std::string_view key = next_part(pair, ' ');
    const auto value = from_base64(pair);
    if (key.empty() || !value || !out.emplace(key, *value).second) return bad;
  }
  return out;
}

Result<std::optional<Checksum>> Checksum::parse(std::string_view header) {
  if (header.empty()) return std::optional<Checksum>();
  const std::string_view algorithm = next_part(header, ' ');
  const EVP_MD* digest = algorithm == "sha1" ? EVP_sha1() : algorithm == "sha256" ? EVP_sha256() : nullptr;
  if (!digest) return invalid_field("Upload-Checksum", {"算法应为 sha1 或 sha256", "must be sha1 or sha256"});
  auto expected = from_base64(header);
  if (!expected || expected->size() != static_cast<std::size_t>(EVP_MD_get_size(digest)))
    return invalid_field("Upload-Checksum", {"不是该算法的摘要", "is not a hash of that algorithm"});
  Checksum out;
  out.expected_ = std::move(*expected);
  out.context_ =
      std::shared_ptr<void>(EVP_MD_CTX_new(), [](void* p) { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(p)); });
  EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(out.context_.get()), digest, nullptr);
  return std::optional(std::move(out));
}

void Checksum::add(std::string_view bytes) {
  EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_.get()), bytes.data(), bytes.size());
}

bool Checksum::matches() {
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_.get()), hash, &size);
  return expected_ == std::string_view(reinterpret_cast<const char*>(hash), size);
}

std::string http_date(Time time) {
  const std::time_t seconds = std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char out[64];
  const auto length = std::strftime(out, sizeof out, "%a, %d %b %Y %H:%M:%S GMT", &utc);
  return {out, length};
}

}  // namespace lathe::files::tus
