// Binds process.h, thread_pool.h and unlocked.h: forks, threads, and the end of Python.
#include <pybind11/pybind11.h>

#include "base/process.h"
#include "base/thread_pool.h"
#include "base/unlocked.h"

namespace fastload {
namespace py = pybind11;

void bind_process(py::module_ &module) {
    reset_in_forked_children();
    module.def("fork_count", &fork_count,
               "How many forks lie between the process that loaded this module and this one.");
    module.def(
        "sleep_at_the_end", [] { Unlocked unlocked; },
        "Returns at once, or sleeps for ever if Python is about to end on another thread.");
    module.def("begin_end", &begin_end, py::arg("seconds"),
               "Python is about to end on the calling thread: waits for other threads to sleep in native code.");
    module.def("sleep_for_ever", [] { sleep_for_ever(); }, "For a thread that must not go on, as Python ends.");
    module.def("check_threads", &check_threads, py::arg("count"), py::call_guard<Unlocked>(),
               "Raises RuntimeError if the system does not give so many threads at once.");
    module.def("prepare_thread", &prepare_thread,
               "Allocates what the calling thread needs once, while there is memory.");
    module.def("check_room_for_thread", &check_room_for_thread,
               "Raises RuntimeError if there is no memory for a thread and what it allocates as it begins.");
    // Handlers run in reverse order, so handlers that are registered later still find native code working.
    constexpr double SECONDS = 0.25;
    py::module_::import("atexit").attr("register")(py::cpp_function([] { begin_end(SECONDS); }));
}

}  // namespace fastload
