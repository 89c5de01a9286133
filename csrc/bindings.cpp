// The table of contents of fastload._native: a line for each binding, and the Python files that it serves.
#include <pybind11/pybind11.h>

#define BIND(name)                         \
    void bind_##name(pybind11::module_ &); \
    bind_##name(module)

namespace fastload {

void bind_all(pybind11::module_ &module) {
    BIND(shortage);         // shortage.py
    BIND(process);          // backends.py
    BIND(philox);           // rng.py
    BIND(permutation);      // order/permutation.py
    BIND(mixture);          // order/mixture.py
    BIND(container_index);  // shards/tar.py, shards/zip.py
    BIND(index_lookup);     // shards/index.py
    BIND(image_header);     // decode/image_header.py
    BIND(geometry);         // decode/spec.py
    BIND(jpeg);             // decode/images.py
    BIND(pixels);           // decode/images.py
    BIND(buffer_pool);      // loader/batch.py
    BIND(shard_reader);     // read/shard_reader.py
    BIND(image_batch);      // decode/images.py
    BIND(augment);          // ops/fused_augment.py
    BIND(ada);              // ops/ada_augment.py
}

}  // namespace fastload

PYBIND11_MODULE(_native, module) {
    module.doc() = "The native halves of fastload; each is documented at its Python twin.";
    fastload::bind_all(module);
}
