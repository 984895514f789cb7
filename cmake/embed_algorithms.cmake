# Writes one .cpp that holds the preset algorithms and their code:
#   cmake -DOUTPUT=FILE -DDEFINITIONS=algorithms -DCODE=examples/tiny-llm -P embed_algorithms.cmake

cmake_minimum_required(VERSION 3.25)

# One function that returns the files. MARK must not occur in any of them.
function(embed function prefix files out)
  set(rows "")
  foreach(file IN LISTS files)
    get_filename_component(name ${file} NAME)
    file(READ ${file} content)
    if(content MATCHES "[)]embedded\"")
      message(FATAL_ERROR "${file}: contains what ends an embedded file")
    endif()
    string(APPEND rows "      {\"${prefix}${name}\", R\"embedded(${content})embedded\"},\n")
  endforeach()
  set(${out} "std::span<const EmbeddedFile> ${function}() {
  static constexpr EmbeddedFile kFiles[] = {
${rows}  };
  return kFiles;
}
" PARENT_SCOPE)
endfunction()

file(GLOB definitions ${DEFINITIONS}/*.yaml)
list(SORT definitions)
file(GLOB code ${CODE}/*.py)
list(FILTER code EXCLUDE REGEX "/(demo|test_[^/]*)\\.py$")
list(SORT code)
get_filename_component(folder ${CODE} NAME)
embed(embedded_definitions "" "${definitions}" definitions_text)
embed(embedded_code "${folder}/" "${code}" code_text)

file(WRITE ${OUTPUT} "// Made from algorithms/*.yaml and the examples they run.
#include \"algorithms/embedded.h\"

namespace lathe::algorithms {

${definitions_text}
${code_text}
}  // namespace lathe::algorithms
")
