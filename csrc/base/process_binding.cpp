// Binds the processes, threads and the end of Python: process.h, thread_pool.h and unlocked.h.
#include <pybind11/pybind11.h>

#include "base/process.h"
#include "base/thread_pool.h"
#include "base/unlocked.h"

namespace py = pybind11;

namespace fastload {

void bind_process(py::module_ &module) {
    reset_in_forked_children();
    module.def("fork_count", &fork_count,
               "How many forks lie between the process that loaded this module and this one.");
    module.def(
        "sleep_at_the_end", [] { Unlocked unlocked; },
        "Returns at once; where Python is about to end, on another thread, it sleeps for ever.");
    module.def("begin_end", &begin_end, py::arg("seconds"),
               "Python is about to end, on the calling thread: waits so long for others to sleep in native code.");
    module.def("sleep_for_ever", [] { sleep_for_ever(); }, "For a thread that must not go on, as Python ends.");
    module.def("check_threads", &check_threads, py::arg("count"), py::call_guard<Unlocked>(),
               "Raises RuntimeError where the system does not give so many threads at once.");
    module.def("prepare_thread", &prepare_thread,
               "What the calling thread needs once, taken now: later there may be no memory for it.");
    module.def("check_room_for_thread", &check_room_for_thread,
               "Raises RuntimeError where there is no memory for a thread and what it takes as it begins.");
    // Handlers run in reverse order, so that whatever is registered after this module was loaded still works.
    constexpr double SECONDS = 0.25;
    py::module_::import("atexit").attr("register")(py::cpp_function([] { begin_end(SECONDS); }));
}

}  // namespace fastload
