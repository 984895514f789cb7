# Writes one .cpp that holds every migration:
#   cmake -DOUTPUT=FILE -DFOLDER=src/db/migrations -P embed_migrations.cmake

cmake_minimum_required(VERSION 3.25)

file(GLOB files ${FOLDER}/*.sql)
list(SORT files)
set(rows "")
set(seen "")
foreach(file IN LISTS files)
  get_filename_component(name ${file} NAME_WE)
  if(NOT name MATCHES "^[0-9][0-9][0-9][0-9]_[a-z0-9_]+$")
    message(FATAL_ERROR "${file}: a migration is named NNNN_what_it_does.sql")
  endif()
  string(SUBSTRING ${name} 0 4 digits)
  if(digits IN_LIST seen)
    message(FATAL_ERROR "${file}: another migration has the number ${digits}")
  endif()
  list(APPEND seen ${digits})
  string(REGEX REPLACE "^0+" "" version ${digits})
  file(READ ${file} sql)
  string(APPEND rows "    {${version}, \"${name}\", R\"migration(${sql})migration\"},\n")
endforeach()

file(WRITE ${OUTPUT} "// Made from src/db/migrations/*.sql.
#include \"db/migrations.h\"

namespace lathe::db {

std::span<const Migration> embedded_migrations() {
  static constexpr Migration kMigrations[] = {
${rows}  };
  return kMigrations;
}

}  // namespace lathe::db
")
