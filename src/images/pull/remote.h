#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "images/pull/fetcher.h"
#include "images/pull/remote_name.h"

namespace lathe::images::pull {

struct Credentials {
  std::string user_name, password;
  bool empty() const { return user_name.empty() && password.empty(); }
};

/// A repository of another registry, read as the distribution specification 1.1 says: anonymously or with
/// credentials, by Basic or by the tokens that the registry asks for. Redirects are followed, five at most;
/// what authorizes is sent to the registry (and the credentials to the place where it says tokens are had)
/// and nowhere else. Only https, but for the hosts that the rules name as insecure. For one thread.
class Remote {
 public:
  Remote(Fetcher& fetcher, const Rules& rules, const RemoteName& name, const Credentials& credentials,
         std::function<bool()> go_on)
      : fetcher_(fetcher), rules_(rules), name_(name), credentials_(credentials), go_on_(std::move(go_on)) {}

  struct Document {
    std::string bytes, media_type;
  };
  /// Of a tag or a digest. At most oci::kMaxDocument bytes; of a digest, they are what it says. Errors
  /// besides the fetcher's: not_found, permission_denied (the registry's refusal), resource_exhausted and
  /// unavailable (try again later), failed_precondition, invalid_argument (it does not speak as it should).
  Result<Document> manifest(const std::string& wanted);
  /// The bytes of a blob from `from` on; `sink` is not told what was before it even where the registry sends
  /// it. The same errors.
  Result<void> blob(const std::string& digest, std::uint64_t from,
                    const std::function<Result<void>(std::string_view)>& sink);

 private:
  struct Reply;
  Result<Reply> ask(const std::string& target, std::vector<std::string> headers, const Fetcher::Sink& sink);
  Result<Reply> follow(Url url, const std::vector<std::string>& headers, const std::string& authorization,
                       const Fetcher::Sink& sink);
  Result<std::string> authorize(const Fetcher::Head& refusal);
  Result<std::string> fetch_token(std::string_view challenge);
  std::string basic() const;
  Result<void> check_scheme(const Url& url) const;
  Error refused(const Reply& reply, const std::string& what) const;

  Fetcher& fetcher_;
  const Rules& rules_;
  const RemoteName& name_;
  const Credentials& credentials_;
  std::function<bool()> go_on_;
  std::string authorization_;
};

}  // namespace lathe::images::pull
