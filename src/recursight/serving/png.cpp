// Small PNG files straight into pixels: what the specification (third edition) calls greyscale and truecolour with 8 bits,
// not interlaced, with no chunk that says more about the pixels. Everything else is left to the caller, broken files too.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace {

using Bytes = std::vector<uint8_t>;
using namespace std::string_view_literals;

struct Libraries {
    // zlib
    int (*uncompress)(uint8_t* target, unsigned long* target_bytes, const uint8_t* source, unsigned long source_bytes);
    unsigned long (*crc32)(unsigned long crc, const uint8_t* bytes, unsigned count);
    // libdeflate, or nulls
    void* (*alloc_decompressor)();
    int (*zlib_decompress)(void*, const uint8_t* source, size_t source_bytes, uint8_t* target, size_t, size_t* written);
    void (*free_decompressor)(void*);
};

// Inflates by libdeflate, in half the time, where it is installed.
class Inflater {
   public:
    explicit Inflater(const Libraries& libraries)
        : libraries(libraries), fast(libraries.alloc_decompressor ? libraries.alloc_decompressor() : nullptr) {}
    Inflater(const Inflater&) = delete;
    ~Inflater() {
        if (fast) libraries.free_decompressor(fast);
    }

    bool operator()(const Bytes& compressed, uint8_t* target, unsigned long wanted) const {
        unsigned long got = wanted;
        const int failed = fast ? libraries.zlib_decompress(fast, compressed.data(), compressed.size(), target, wanted, &got)
                                : libraries.uncompress(target, &got, compressed.data(), compressed.size());
        return !failed && got == wanted;
    }

   private:
    const Libraries& libraries;
    void* const fast;
};

struct Shape {
    long height, width, channels;
    long row() const { return width * channels; }
};

uint32_t number(const uint8_t* bytes) {
    return uint32_t(bytes[0]) << 24 | uint32_t(bytes[1]) << 16 | uint32_t(bytes[2]) << 8 | bytes[3];
}

#ifdef __APPLE__
#define CHANGED st_mtimespec
#else
#define CHANGED st_mtim
#endif

constexpr long LARGEST = 1 << 20;  // bytes of a file

// Its content, and what tells whether it is still the same file: bytes, and the time of the last change in nanoseconds.
bool read_file(int folder, const char* path, Bytes& content, int64_t* version) {
    struct stat about;
    const int file = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not keep us waiting
    if (file < 0) return false;
    long got = -1;
    if (!fstat(file, &about) && S_ISREG(about.st_mode) && about.st_size <= LARGEST) {
        version[0] = about.st_size;
        version[1] = int64_t(about.CHANGED.tv_sec) * 1'000'000'000 + about.CHANGED.tv_nsec;
        content.resize(about.st_size);
        got = read(file, content.data(), content.size());
    }
    close(file);
    return got == long(content.size());
}

bool is_header_of(const uint8_t* header, const Shape& shape) {
    const uint8_t coding[] = {8, uint8_t(shape.channels == 3 ? 2 : 0), 0, 0, 0};  // bits, colour, ..., interlace
    return number(header) == shape.width && number(header + 4) == shape.height && !std::memcmp(header + 8, coding, 5);
}

bool is_harmless(std::string_view kind) {
    for (const auto known : {"gAMA"sv, "cHRM"sv, "sRGB"sv, "pHYs"sv, "tIME"sv, "bKGD"sv})
        if (kind == known) return true;
    return false;
}

// The compressed rows of all IDAT chunks.
bool collect(const Bytes& file, const Shape& shape, const Libraries& libraries, Bytes& compressed) {
    constexpr size_t SIGNATURE = 8, AROUND = 12, HEADER = 13;  // a chunk has its length, kind and checksum around it
    if (file.size() < SIGNATURE || std::memcmp(file.data(), "\x89PNG\r\n\x1a\n", SIGNATURE)) return false;
    compressed.clear();
    size_t start = SIGNATURE;
    while (file.size() - start >= AROUND) {
        const uint8_t* chunk = file.data() + start;
        const size_t length = number(chunk);
        if (length > file.size() - start - AROUND) return false;
        const std::string_view kind(reinterpret_cast<const char*>(chunk + 4), 4);
        const uint8_t* content = chunk + 8;
        if ((start == SIGNATURE) != (kind == "IHDR"sv)) return false;
        if (kind == "IDAT"sv) {  // has a checksum of its own inside
            compressed.insert(compressed.end(), content, content + length);
        } else if (libraries.crc32(0, chunk + 4, length + 4) != number(content + length)) {
            return false;
        } else if (kind == "IHDR"sv) {
            if (length != HEADER || !is_header_of(content, shape)) return false;
        } else if (kind == "IEND"sv) {
            return true;
        } else if (!is_harmless(kind)) {
            return false;
        }
        start += AROUND + length;
    }
    return false;
}

// The one of left, above and corner that is nearest to left + above - corner, with two comparisons in place of three
// distances: the corner is, unless 3 * corner, seen from left + above, passes the higher or the lower of the two others.
uint8_t paeth(int left, int above, int corner) {
    const int low = std::min(left, above), high = std::max(left, above);
    const int side = 3 * corner - left - above;
    const int unless_higher = side >= high ? low : corner;
    return side <= low ? high : unless_higher;
}

template <int CHANNELS>
bool undo(int filter, const uint8_t* row, const uint8_t* above, uint8_t* pixels, long bytes) {
    const auto each = [=](auto predict) {
        for (long i = 0; i < CHANNELS; i++) pixels[i] = row[i] + predict(0, above[i], 0);
        for (long i = CHANNELS; i < bytes; i++)
            pixels[i] = row[i] + predict(pixels[i - CHANNELS], above[i], above[i - CHANNELS]);
        return true;
    };
    switch (filter) {
        case 0: return std::memcpy(pixels, row, bytes);
        case 1: return each([](int left, int, int) { return left; });
        case 2: return each([](int, int above, int) { return above; });
        case 3: return each([](int left, int above, int) { return (left + above) / 2; });
        case 4: return each(paeth);
        default: return false;
    }
}

bool decode(const Bytes& compressed, const Shape& shape, const Inflater& inflate, Bytes& rows, uint8_t* pixels) {
    const long wanted = shape.height * (1 + shape.row());
    rows.resize(wanted + shape.row());
    if (!inflate(compressed, rows.data(), wanted)) return false;
    const auto undo_row = shape.channels == 1 ? undo<1> : undo<3>;
    const uint8_t *row = rows.data(), *above = row + wanted;  // above the first row: zeros
    for (long y = 0; y < shape.height; y++, row += 1 + shape.row(), above = pixels, pixels += shape.row())
        if (!undo_row(*row, row + 1, above, pixels, shape.row())) return false;
    return true;
}

}  // namespace

// Decodes files of a folder into their places; `done` says of each whether that worked, and then `versions` (two numbers
// each) which file it was. Paths end with 0, one behind the other.
extern "C" void decode_files(const Libraries* libraries, const char* folder, const char* paths, uint8_t* pixels,
                             uint8_t* done, int64_t* versions, long images, const Shape* shape) {
    Bytes file, compressed, rows;
    const Inflater inflate(*libraries);
    const int root = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (long image = 0; image < images; image++, pixels += shape->height * shape->row(), versions += 2) {
        done[image] = read_file(root, paths, file, versions) && collect(file, *shape, *libraries, compressed) &&
                      decode(compressed, *shape, inflate, rows, pixels);
        paths += std::strlen(paths) + 1;
    }
    if (root >= 0) close(root);
}
