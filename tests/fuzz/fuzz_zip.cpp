// Fuzz target of zip_index.
#include "container_target.h"
#include "zip_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    fastload::index_and_check(fastload::index_zip, bytes, size);
    return 0;
}
