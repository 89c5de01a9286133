// Runs a fuzz target where there is no libFuzzer: mutates a corpus, guided by coverage, with any C++ compiler.
//
//     TARGET [-runs=N] [-max_total_time=SECONDS] [-seed=N] [-max_len=BYTES] [-artifact_prefix=PATH] FOLDER-OR-FILE...
//
// takes libFuzzer's options of these names and prints its final statistics. The files that are given run first, as
// they are; with -runs=0 only they. Equal seeds and runs give equal inputs. An input that crashes, violates a property
// or takes more than 10 seconds is written to PATHcrash-N, and the exit status is not 0.
// Coverage is what -fsanitize-coverage=trace-pc tells (this file is compiled without it): an input that reaches a
// place for the first time joins the corpus. Without that option, mutation is blind.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
extern "C" __attribute__((weak)) int LLVMFuzzerInitialize(int *count, char ***arguments);

// Both runtimes must end in SIGABRT, which is where the input is written.
extern "C" const char *__asan_default_options() { return "abort_on_error=1:allocator_may_return_null=1"; }
extern "C" const char *__ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }

namespace {

using Input = std::vector<uint8_t>;

constexpr size_t PLACES = size_t{1} << 18;
constexpr unsigned HANG_SECONDS = 10;
uint8_t seen[PLACES];
uint64_t covered = 0, runs_done = 0;
bool new_place = false;

// For the signal handlers, which may neither allocate nor lock.
const Input *current = nullptr;
char artifact[4096] = "crash-0";

void write_current() {
    if (!current) return;
    const int out = ::open(artifact, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (out >= 0 && ::write(out, current->data(), current->size()) == static_cast<ssize_t>(current->size())) {
        const char said[] = "input written to ";
        (void)!::write(2, said, sizeof said - 1);
        (void)!::write(2, artifact, std::strlen(artifact));
        (void)!::write(2, "\n", 1);
    }
}

void on_abort(int) {
    write_current();
    ::signal(SIGABRT, SIG_DFL);
    ::raise(SIGABRT);
}

void on_alarm(int) {
    static uint64_t runs_before = 0;
    static unsigned seconds = 0;
    seconds = runs_done == runs_before ? seconds + 1 : 0;
    runs_before = runs_done;
    if (seconds >= HANG_SECONDS) {
        const char said[] = "TIMEOUT: one input took more than 10 seconds\n";
        (void)!::write(2, said, sizeof said - 1);
        std::abort();
    }
    ::alarm(1);
}

bool run(const Input &input) {
    new_place = false;
    current = &input;
    LLVMFuzzerTestOneInput(input.data(), input.size());
    current = nullptr;
    ++runs_done;
    return new_place;
}

class Mutator {
   public:
    Mutator(uint64_t seed, size_t max_len) : random_(seed), max_len_(max_len) {}

    Input mutated(const std::vector<Input> &corpus) {
        Input input = corpus[below(corpus.size())];
        for (uint64_t left = 1 + below(6); left > 0; --left) mutate(input, corpus[below(corpus.size())]);
        if (input.size() > max_len_) input.resize(max_len_);
        return input;
    }

   private:
    // The bias of a remainder does not matter here, and std's distributions differ between libraries.
    uint64_t below(uint64_t stop) { return stop == 0 ? 0 : random_() % stop; }

    size_t place(const Input &input) {
        // Headers and directories lie at both ends.
        const size_t near = std::min<size_t>(input.size(), 64);
        const uint64_t where = below(4);
        return where == 0 ? below(near) : where == 1 ? input.size() - 1 - below(near) : below(input.size());
    }

    void mutate(Input &input, const Input &other) {
        if (input.empty()) return insert(input, other);
        switch (below(9)) {
            case 0:
                input[place(input)] ^= static_cast<uint8_t>(1 << below(8));
                return;
            case 1:
                input[place(input)] = static_cast<uint8_t>(random_());
                return;
            case 2:
            case 3:
                return write_number(input);
            case 4:
                return change_digit(input);
            case 5:
                return erase(input);
            case 6:
                return insert(input, other);
            case 7:
                return overwrite(input, other);
            default:
                if (below(8) == 0) input.resize(below(input.size()));
        }
    }

    // 1, 2, 4 or 8 bytes, either end first: an extreme, something near the input's size, or a little more or less
    // than what stands there.
    void write_number(Input &input) {
        const size_t width = std::min(size_t{1} << below(4), input.size());
        const size_t at = std::min(place(input), input.size() - width);
        const bool big = below(2);
        auto byte = [&](size_t i) -> uint8_t & { return input[at + (big ? width - 1 - i : i)]; };
        uint64_t value = 0;
        for (size_t i = 0; i < width; ++i) value |= uint64_t{byte(i)} << (8 * i);
        const uint64_t few = below(33) - 16;
        switch (below(4)) {
            case 0:
                value += few;
                break;
            case 1:
                value = input.size() + few;
                break;
            case 2:
                value = (uint64_t{1} << below(64)) + below(3) - 1;
                break;
            default:
                value = few;
        }
        for (size_t i = 0; i < width; ++i) byte(i) = static_cast<uint8_t>(value >> (8 * i));
    }

    // Sizes in tar and in PNM are text.
    void change_digit(Input &input) {
        const size_t from = place(input);
        for (size_t i = from; i < std::min(from + 512, input.size()); ++i)
            if (input[i] >= '0' && input[i] <= '9') {
                input[i] = static_cast<uint8_t>('0' + below(10));
                return;
            }
    }

    // Lengths are often those of a tar's block.
    size_t length(size_t most) {
        const uint64_t kind = below(4);
        return std::min<size_t>(most, kind == 0 ? 512 * (1 + below(3)) : 1 + below(kind == 1 ? 512 : 16));
    }

    void erase(Input &input) {
        const size_t count = length(input.size());
        size_t at = below(input.size() - count + 1);
        if (count % 512 == 0) at = at / 512 * 512;
        input.erase(input.begin() + static_cast<std::ptrdiff_t>(at),
                    input.begin() + static_cast<std::ptrdiff_t>(at + count));
    }

    void insert(Input &input, const Input &other) {
        if (other.empty()) return input.push_back(static_cast<uint8_t>(random_()));
        const size_t count = length(other.size());
        size_t from = below(other.size() - count + 1), at = below(input.size() + 1);
        if (count % 512 == 0) from = from / 512 * 512, at = at / 512 * 512;
        const Input piece(other.begin() + static_cast<std::ptrdiff_t>(from),
                          other.begin() + static_cast<std::ptrdiff_t>(from + count));
        input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), piece.begin(), piece.end());
    }

    void overwrite(Input &input, const Input &other) {
        if (other.empty()) return;
        const size_t count = length(std::min(input.size(), other.size()));
        const size_t from = below(other.size() - count + 1), at = below(input.size() - count + 1);
        std::memmove(input.data() + at, other.data() + from, count);
    }

    std::mt19937_64 random_;
    size_t max_len_;
};

struct Options {
    uint64_t runs = UINT64_MAX, seconds = UINT64_MAX, seed = 1, max_len = 4096;
    std::vector<std::filesystem::path> given;
};

Options options_of(int count, char **arguments) {
    Options options;
    std::string prefix;
    for (int i = 1; i < count; ++i) {
        const std::string text = arguments[i];
        const size_t equals = text.find('=');
        const std::string name = text.substr(0, equals), value = equals < text.size() ? text.substr(equals + 1) : "";
        if (name == "-runs") options.runs = std::strtoull(value.c_str(), nullptr, 10);
        if (name == "-max_total_time") options.seconds = std::strtoull(value.c_str(), nullptr, 10);
        if (name == "-seed") options.seed = std::strtoull(value.c_str(), nullptr, 10);
        if (name == "-max_len") options.max_len = std::strtoull(value.c_str(), nullptr, 10);
        if (name == "-artifact_prefix") prefix = value;
        if (text[0] != '-') options.given.emplace_back(text);
    }
    std::snprintf(artifact, sizeof artifact, "%scrash-%llu", prefix.c_str(),
                  static_cast<unsigned long long>(options.seed));
    return options;
}

std::vector<Input> read_inputs(const std::vector<std::filesystem::path> &given) {
    std::vector<std::filesystem::path> files;
    for (const auto &path : given) {
        if (!std::filesystem::is_directory(path)) {
            files.push_back(path);
            continue;
        }
        for (const auto &entry : std::filesystem::directory_iterator(path))
            if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    std::vector<Input> inputs;
    for (const auto &file : files) {
        std::ifstream stream(file, std::ios::binary);
        if (!stream) {
            std::fprintf(stderr, "cannot read %s\n", file.c_str());
            std::exit(2);
        }
        inputs.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
    }
    return inputs;
}

}  // namespace

extern "C" void __sanitizer_cov_trace_pc() {
    const auto place = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
    uint8_t &at = seen[(place ^ place >> 18) % PLACES];
    if (at) return;
    at = 1;
    new_place = true;
    ++covered;
}

int main(int count, char **arguments) {
    const Options options = options_of(count, arguments);
    if (LLVMFuzzerInitialize) LLVMFuzzerInitialize(&count, &arguments);
    ::signal(SIGABRT, on_abort);
    ::signal(SIGALRM, on_alarm);
    ::alarm(1);
    std::vector<Input> corpus = read_inputs(options.given);
    for (const Input &input : corpus) run(input);
    const size_t seeds = corpus.size();
    if (corpus.empty()) corpus.emplace_back();
    Mutator mutator(options.seed, options.max_len);
    const auto stop =
        std::chrono::steady_clock::now() + std::chrono::seconds(std::min<uint64_t>(options.seconds, 366ull * 86400));
    while (runs_done < options.runs && std::chrono::steady_clock::now() < stop) {
        Input input = mutator.mutated(corpus);
        if (run(input)) corpus.push_back(std::move(input));
    }
    std::fprintf(stderr, "cov: %llu corp: %zu (%zu given)\n", static_cast<unsigned long long>(covered), corpus.size(),
                 seeds);
    std::fprintf(stderr, "stat::number_of_executed_units: %llu\n", static_cast<unsigned long long>(runs_done));
    return 0;
}
