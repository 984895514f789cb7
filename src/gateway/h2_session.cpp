#include "gateway/h2_session.h"

#include <algorithm>
#include <new>

namespace lathe::gateway {

namespace {

constexpr std::size_t kReadSize = 16 * 1024;
constexpr std::size_t kWriteSize = 32 * 1024;
constexpr std::uint32_t kMaxStreams = 256;
/// Of a connection. Streams have 64 KiB each (the default), given back only as their bytes are passed on:
/// that is what bounds the memory. The connection's must not be what one slow stream holds against all
/// others.
constexpr int kConnectionWindow = 16 << 20;

std::uint8_t* bytes_of(std::string_view text) {
  return const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(text.data()));
}

std::vector<nghttp2_nv> list_of(const H2Fields& fields) {
  std::vector<nghttp2_nv> out;
  out.reserve(fields.size());
  for (const auto& [name, value] : fields)
    out.push_back({bytes_of(name), bytes_of(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE});
  return out;
}

struct FreeCallbacks {
  void operator()(nghttp2_session_callbacks* callbacks) const { nghttp2_session_callbacks_del(callbacks); }
};
struct FreeOption {
  void operator()(nghttp2_option* option) const { nghttp2_option_del(option); }
};

}  // namespace

struct H2Session::Callbacks {
  static H2Session& self(void* user) { return *static_cast<H2Session*>(user); }

  static int begin(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    self(user).on_begin(frame->hd.stream_id);
    return 0;
  }
  static int field(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name,
                   std::size_t name_size, const std::uint8_t* value, std::size_t value_size, std::uint8_t,
                   void* user) {
    const bool taken =
        self(user).on_field(frame->hd.stream_id, {reinterpret_cast<const char*>(name), name_size},
                            {reinterpret_cast<const char*>(value), value_size});
    return taken ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  }
  static int frame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    H2Session& session = self(user);
    const bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (frame->hd.type == NGHTTP2_HEADERS)
      session.on_headers(frame->hd.stream_id, frame->headers.cat != NGHTTP2_HCAT_HEADERS, end);
    else if (frame->hd.type == NGHTTP2_DATA && end)
      session.on_data_end(frame->hd.stream_id);
    else if (frame->hd.type == NGHTTP2_GOAWAY)
      session.on_go_away();
    return 0;
  }
  static int data(nghttp2_session* raw, std::uint8_t, std::int32_t stream, const std::uint8_t* bytes,
                  std::size_t size, void* user) {
    nghttp2_session_consume_connection(raw, size);
    self(user).on_data(stream, {reinterpret_cast<const char*>(bytes), size});
    return 0;
  }
  static int closed(nghttp2_session*, std::int32_t stream, std::uint32_t error, void* user) {
    self(user).on_closed(stream, error);
    return 0;
  }
  static ssize_t source(nghttp2_session*, std::int32_t stream, std::uint8_t* into, std::size_t size,
                        std::uint32_t* flags, nghttp2_data_source*, void* user) {
    H2Session& session = self(user);
    const Source got = session.on_source(stream, {reinterpret_cast<char*>(into), size});
    if (got.end) *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (got.end && got.trailers) {
      *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
      session.submit_trailers(stream, *got.trailers);
    }
    if (got.bytes == 0 && !got.end) return NGHTTP2_ERR_DEFERRED;
    return static_cast<ssize_t>(got.bytes);
  }
  static nghttp2_data_provider provider() { return {.source = {.ptr = nullptr}, .read_callback = source}; }
};

H2Session::H2Session(http::Loop& loop, bool server) : loop_(loop) {
  nghttp2_session_callbacks* made = nullptr;
  nghttp2_option* option = nullptr;
  if (nghttp2_session_callbacks_new(&made) != 0) throw std::bad_alloc();
  const std::unique_ptr<nghttp2_session_callbacks, FreeCallbacks> callbacks(made);
  if (nghttp2_option_new(&option) != 0) throw std::bad_alloc();
  const std::unique_ptr<nghttp2_option, FreeOption> owned(option);
  nghttp2_option_set_no_auto_window_update(option, 1);
  nghttp2_option_set_max_outbound_ack(option, 1000);
  nghttp2_session_callbacks_set_on_begin_headers_callback(made, Callbacks::begin);
  nghttp2_session_callbacks_set_on_header_callback(made, Callbacks::field);
  nghttp2_session_callbacks_set_on_frame_recv_callback(made, Callbacks::frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, Callbacks::data);
  nghttp2_session_callbacks_set_on_stream_close_callback(made, Callbacks::closed);
  nghttp2_session* session = nullptr;
  const int failed = server ? nghttp2_session_server_new2(&session, made, this, option)
                            : nghttp2_session_client_new2(&session, made, this, option);
  if (failed != 0) throw std::bad_alloc();
  session_.reset(session);
  std::vector<nghttp2_settings_entry> settings{{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, kMaxStreams},
                                               {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 32 * 1024}};
  if (!server) settings.push_back({NGHTTP2_SETTINGS_ENABLE_PUSH, 0});
  nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, kConnectionWindow);
}

void H2Session::kick() {
  kicked_ = true;
  if (writer_) loop_.resume_later(std::exchange(writer_, nullptr));
}

void H2Session::close() {
  closing_ = true;
  kick();
}

int H2Session::submit_answer(int stream, const H2Fields& fields, bool with_body) {
  const auto list = list_of(fields);
  const auto provider = Callbacks::provider();
  kick();
  return nghttp2_submit_response(raw(), stream, list.data(), list.size(), with_body ? &provider : nullptr);
}

int H2Session::submit_trailers(int stream, const H2Fields& fields) {
  const auto list = list_of(fields);
  kick();
  return nghttp2_submit_trailer(raw(), stream, list.data(), list.size());
}

int H2Session::submit_request(const H2Fields& fields, bool with_body) {
  const auto list = list_of(fields);
  const auto provider = Callbacks::provider();
  kick();
  return nghttp2_submit_request(raw(), nullptr, list.data(), list.size(), with_body ? &provider : nullptr,
                                nullptr);
}

void H2Session::reset(int stream, std::uint32_t error_code) {
  nghttp2_submit_rst_stream(raw(), NGHTTP2_FLAG_NONE, stream, error_code);
  kick();
}

void H2Session::resume(int stream) {
  nghttp2_session_resume_data(raw(), stream);
  kick();
}

void H2Session::consumed(int stream, std::size_t bytes) {
  nghttp2_session_consume_stream(raw(), stream, bytes);
  kick();
}

http::Task<> H2Session::read_all(std::string_view first) {
  const auto buffer = std::make_unique_for_overwrite<char[]>(kReadSize);
  std::string_view piece = first;
  while (!closing_) {
    if (piece.empty()) {
      const auto got = co_await receive({buffer.get(), kReadSize});
      if (got == 0) break;
      piece = {buffer.get(), got};
    }
    const auto used = nghttp2_session_mem_recv(raw(), bytes_of(piece), piece.size());
    kick();
    // After a breach of the protocol nghttp2 has a GOAWAY to send, and nothing more to read.
    if (used < 0 || nghttp2_session_want_read(raw()) == 0) break;
    piece = {};
  }
}

http::Task<> H2Session::write_all() {
  struct Idle {
    H2Session& session;
    bool await_ready() const { return std::exchange(session.kicked_, false); }
    void await_suspend(std::coroutine_handle<> waiting) const { session.writer_ = waiting; }
    void await_resume() const { session.kicked_ = false; }
  };
  std::string out;
  for (;;) {
    const std::uint8_t* data = nullptr;
    const auto size = nghttp2_session_mem_send(raw(), &data);
    if (size < 0) break;
    if (size > 0) out.append(reinterpret_cast<const char*>(data), static_cast<std::size_t>(size));
    if (!out.empty() && (size == 0 || out.size() >= kWriteSize)) {
      const bool sent = co_await transmit(out);
      if (!sent) break;
      out.clear();
      continue;
    }
    if (size > 0) continue;
    if (closing_) break;
    co_await Idle{*this};
  }
  closing_ = true;
}

}  // namespace lathe::gateway
