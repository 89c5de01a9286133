// The table of contents of fastload._native: one line for each room, nothing else.
#include <pybind11/pybind11.h>

namespace fastload {
void bind_shortage(pybind11::module_ &);
void bind_process(pybind11::module_ &);
void bind_philox(pybind11::module_ &);
void bind_permutation(pybind11::module_ &);
void bind_mixture(pybind11::module_ &);
void bind_container_index(pybind11::module_ &);
void bind_index_lookup(pybind11::module_ &);
void bind_image_header(pybind11::module_ &);
void bind_geometry(pybind11::module_ &);
void bind_jpeg(pybind11::module_ &);
void bind_pixels(pybind11::module_ &);
void bind_buffer_pool(pybind11::module_ &);
void bind_shard_reader(pybind11::module_ &);
void bind_image_batch(pybind11::module_ &);
void bind_augment(pybind11::module_ &);
void bind_ada(pybind11::module_ &);
}  // namespace fastload

PYBIND11_MODULE(_native, module) {
    module.doc() = "The native halves of fastload's stages; each is documented at its plain twin.";
    fastload::bind_shortage(module);         // shortage.py
    fastload::bind_process(module);          // backends.py
    fastload::bind_philox(module);           // rng.py
    fastload::bind_permutation(module);      // order/permutation.py
    fastload::bind_mixture(module);          // order/mixture.py
    fastload::bind_container_index(module);  // shards/tar.py, shards/zip.py
    fastload::bind_index_lookup(module);     // shards/index.py
    fastload::bind_image_header(module);     // decode/image_header.py
    fastload::bind_geometry(module);         // decode/spec.py
    fastload::bind_jpeg(module);             // decode/images.py
    fastload::bind_pixels(module);           // decode/images.py
    fastload::bind_buffer_pool(module);      // loader/batch.py
    fastload::bind_shard_reader(module);     // read/shard_reader.py
    fastload::bind_image_batch(module);      // decode/images.py
    fastload::bind_augment(module);          // ops/fused_augment.py
    fastload::bind_ada(module);              // ops/ada_augment.py
}
