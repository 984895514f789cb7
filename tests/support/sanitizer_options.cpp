// Linked into every program of the asan and tsan presets, so that the options hold for child processes too.

extern "C" const char* __asan_default_options() {
  return "abort_on_error=1:detect_stack_use_after_return=1:strict_string_checks=1";
}

extern "C" const char* __ubsan_default_options() {
  return "print_stacktrace=1:abort_on_error=1";
}

extern "C" const char* __tsan_default_options() {
  return "halt_on_error=1:second_deadlock_stack=1";
}
