#pragma once

#include <optional>
#include <string_view>

namespace lathe::serving {

/// The life of a replica:
///
///     starting ──► ready ◄──► unready
///         │         │ ▲           │
///         │         ▼ │           │
///         │      draining         │      gets no new request, ends those it has
///         └─────────┼─────────────┤
///                   ▼             │
///                stopping ◄───────┘      told to end
///                   ▼
///                 ended                  from any state, by itself too
enum class ReplicaState { starting, ready, unready, draining, stopping, ended };
std::string_view name(ReplicaState state);
std::optional<ReplicaState> replica_state(std::string_view name);

}  // namespace lathe::serving
