#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fields.h"

/// Keyset paging, the form of every list of the project's own API: `?pageSize=&cursor=` →
/// `{items, nextCursor}`. A cursor is where the last row stood; nothing is counted or skipped, so every page
/// costs the same and rows that come or go move nothing.
namespace lathe::http {

struct SliceQuery {
  std::int64_t pageSize = 0;
  std::string cursor;  ///< what `nextCursor` said; empty: from the start
  std::int64_t size() const { return pageSize <= 0 ? 50 : pageSize; }
  /// Ask the store for this many: one more than a slice, to know whether there is another.
  std::int64_t limit() const { return size() + 1; }
};
inline void fields(Fields& f, SliceQuery& q) {
  f.field("pageSize", q.pageSize, {.doc = "At most this many items, 50 if absent", .min = 0, .max = 500});
  f.field("cursor", q.cursor,
          {.doc = "`nextCursor` of the slice before", .max_length = 200, .form = Form::id});
}

template <class T>
struct Slice {
  std::vector<T> items;
  std::optional<std::string> nextCursor;  ///< absent: this was the last
};
template <class T>
void fields(Fields& f, Slice<T>& slice) {
  f.field("items", slice.items);
  f.field("nextCursor", slice.nextCursor, {.doc = "Where the next slice begins; null after the last"});
}

/// Cuts what a query with `limit()` gave down to a slice. `cursor_of(last item)` names its place.
template <class T, class CursorOf>
Slice<T> slice(const SliceQuery& query, std::vector<T> found, CursorOf cursor_of) {
  Slice<T> out;
  const bool more = static_cast<std::int64_t>(found.size()) > query.size();
  if (more) found.resize(static_cast<std::size_t>(query.size()));
  if (more) out.nextCursor = cursor_of(found.back());
  out.items = std::move(found);
  return out;
}

}  // namespace lathe::http
