#include "jobs/log_tail.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/fd.h"
#include "base/text_form.h"

namespace lathe::jobs {

std::string clean_text(std::string_view bytes) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  std::string out;
  out.reserve(bytes.size());
  for (std::size_t i = 0; i < bytes.size();) {
    const auto lead = static_cast<unsigned char>(bytes[i]);
    std::size_t length = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    length = std::min(length, bytes.size() - i);
    const auto piece = bytes.substr(i, length);
    if (lead != 0 && count_code_points(piece).value_or(0) == 1) {
      out += piece;
      i += length;
    } else {
      out += kReplacement;
      ++i;
    }
  }
  return out;
}

std::string log_tail(const std::string& path, std::size_t lines, std::size_t bytes) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return {};
  const auto size = static_cast<std::size_t>(info.st_size);
  const std::size_t from = size > bytes ? size - bytes : 0;
  std::string text(size - from, '\0');
  const ssize_t got = ::pread(fd.get(), text.data(), text.size(), static_cast<off_t>(from));
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  if (from > 0)
    if (const auto end = text.find('\n'); end != std::string::npos && end + 1 < text.size())
      text.erase(0, end + 1);
  std::size_t start = text.size();
  for (std::size_t n = 0; n <= lines && start > 0; ++n) {
    const auto end = text.rfind('\n', start - 1);
    if (end == std::string::npos) {
      start = 0;
      break;
    }
    start = end;
    if (n == lines) ++start;
  }
  return clean_text(std::string_view(text).substr(start));
}

}  // namespace lathe::jobs
