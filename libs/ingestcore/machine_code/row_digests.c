/* SHA-256, cut to 16 bytes, of one message a row, by the processor's own SHA instructions.
 *
 * The message is the one ingestcore/tabular/keys.py defines; it is put together from columns row by row, so it never
 * exists as a column of its own.
 */

#if !defined(__x86_64__)
#error "SHA instructions of x86-64 only; elsewhere the installation goes without this library"
#endif

#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SHA __attribute__((target("sha,sse4.1,ssse3")))

enum { SCOPE = 16, DIGEST = 16, BLOCK = 64, PADDING = BLOCK + 9 };

/* FIPS 180-4, 4.2.2 */
static const uint32_t ROUND[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* -> digest of the source this was built from: a library of another source may want other arguments */
const char *ingest_source(void) { return SOURCE_DIGEST; }

/* -> 1: this processor has the instructions */
int ingest_row_digests_usable(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1) || !(c & bit_SSSE3)) return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

/* Digests of one message, or of two with as many blocks side by side: an instruction waits for the one before it, and
 * two chains wait together. `lanes` is a constant wherever this is called. */
SHA static inline __attribute__((always_inline)) void digest(const int lanes, const uint8_t *const *messages,
                                                             size_t blocks, uint8_t *out) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i abef[2], cdgh[2], abef_before[2], cdgh_before[2], w[2][4];
    for (int lane = 0; lane < lanes; lane++) {
        /* The instructions want the eight words of the state as ABEF and CDGH. */
        abef[lane] = _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c);
        cdgh[lane] = _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19);
    }
    for (size_t block = 0; block < blocks; block++) {
        for (int lane = 0; lane < lanes; lane++) {
            abef_before[lane] = abef[lane];
            cdgh_before[lane] = cdgh[lane];
        }
#pragma GCC unroll 16
        for (int four = 0; four < 16; four++) {
            const __m128i constants = _mm_load_si128((const __m128i *)(ROUND + 4 * four));
#pragma GCC unroll 2
            for (int lane = 0; lane < lanes; lane++) {
                __m128i *const v = w[lane];
                if (four < 4) {
                    v[four] = _mm_loadu_si128((const __m128i *)(messages[lane] + block * BLOCK) + four);
                    v[four] = _mm_shuffle_epi8(v[four], swap);
                } else {
                    const __m128i last = v[(four + 3) & 3];
                    const __m128i seventh = _mm_alignr_epi8(last, v[(four + 2) & 3], 4);
                    const __m128i first = _mm_sha256msg1_epu32(v[four & 3], v[(four + 1) & 3]);
                    v[four & 3] = _mm_sha256msg2_epu32(_mm_add_epi32(first, seventh), last);
                }
                const __m128i round = _mm_add_epi32(v[four & 3], constants);
                cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], round);
                abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32(round, 0x0e));
            }
        }
        for (int lane = 0; lane < lanes; lane++) {
            abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
        }
    }
    for (int lane = 0; lane < lanes; lane++) {
        const __m128i dcba = _mm_unpackhi_epi64(cdgh[lane], abef[lane]);
        _mm_storeu_si128((__m128i *)(out + lane * DIGEST), _mm_shuffle_epi8(_mm_shuffle_epi32(dcba, 0x1b), swap));
    }
}

SHA static void digest_one(const uint8_t *message, size_t blocks, uint8_t *out) { digest(1, &message, blocks, out); }

SHA static void digest_two(const uint8_t *first, const uint8_t *second, size_t blocks, uint8_t *out) {
    const uint8_t *messages[2] = {first, second};
    digest(2, messages, blocks, out);
}

static inline uint8_t *put(uint8_t *at, uint64_t number, int size) {
    number = __builtin_bswap64(number) >> (64 - 8 * size);
    memcpy(at, &number, (size_t)size);
    return at + size;
}

struct rows {
    const uint8_t *scopes;
    int64_t scope_stride;
    int64_t columns;
    const uint8_t *const *nulls;
    int64_t numbers;
    const uint8_t *const *words;
    const int64_t *strides;
    int64_t strings;
    const int32_t *const *offsets;
    const uint8_t *const *texts;
};

struct message {
    uint8_t *bytes;
    size_t room;
    size_t blocks;
};

/* Put a row's message together, padded as FIPS 180-4, 5.1.1, has it. -> 0; -1: no memory */
static int compose(const struct rows *of, int64_t row, struct message *message) {
    const size_t bitmap = (size_t)(of->columns + 7) / 8;
    size_t size = SCOPE + bitmap + 8 * (size_t)of->numbers + 4 * (size_t)of->strings;
    for (int64_t i = 0; i < of->strings; i++) size += (size_t)(of->offsets[i][row + 1] - of->offsets[i][row]);
    if (size + PADDING > message->room) {
        uint8_t *larger = realloc(message->bytes, 2 * (size + PADDING));
        if (!larger) return -1;
        message->bytes = larger;
        message->room = 2 * (size + PADDING);
    }
    uint8_t *at = message->bytes;
    memcpy(at, of->scopes + row * of->scope_stride, SCOPE);
    at += SCOPE;
    memset(at, 0, bitmap);
    for (int64_t i = 0; i < of->columns; i++)
        if (of->nulls[i] && of->nulls[i][row]) at[i / 8] |= (uint8_t)(0x80 >> (i % 8));
    at += bitmap;
    for (int64_t i = 0; i < of->numbers; i++) {
        uint64_t word;
        memcpy(&word, of->words[i] + row * of->strides[i], sizeof word);
        at = put(at, word, 8);
    }
    for (int64_t i = 0; i < of->strings; i++) at = put(at, (uint64_t)(of->offsets[i][row + 1] - of->offsets[i][row]), 4);
    for (int64_t i = 0; i < of->strings; i++) {
        const size_t length = (size_t)(of->offsets[i][row + 1] - of->offsets[i][row]);
        if (length) memcpy(at, of->texts[i] + of->offsets[i][row], length);
        at += length;
    }
    message->blocks = (size + 9 + BLOCK - 1) / BLOCK;
    memset(at, 0, message->blocks * BLOCK - size);
    *at = 0x80;
    put(message->bytes + message->blocks * BLOCK - 8, 8 * (uint64_t)size, 8);
    return 0;
}

/* Digest of every row's message.
 *
 * scopes        16 bytes a row, `scope_stride` bytes apart (0: one for all)
 * nulls         `columns` masks of one byte a row, not 0 = null; NULL: the column has none
 * words         `numbers` columns of 8-byte integers, `strides` bytes apart, 0 where null
 * offsets,texts `strings` Arrow string columns: row i is texts[offsets[i]] up to texts[offsets[i + 1]], empty if null
 * out           16 bytes a row
 * -> 0; -1: no memory
 */
int ingest_row_digests(int64_t rows, const uint8_t *scopes, int64_t scope_stride, int64_t columns,
                       const uint8_t *const *nulls, int64_t numbers, const uint8_t *const *words,
                       const int64_t *strides, int64_t strings, const int32_t *const *offsets,
                       const uint8_t *const *texts, uint8_t *out) {
    const struct rows of = {scopes, scope_stride, columns, nulls, numbers, words, strides, strings, offsets, texts};
    struct message first = {0}, second = {0};
    int failed = 0;
    for (int64_t row = 0; row < rows && !failed; row += 2) {
        const int pair = row + 1 < rows;
        failed = compose(&of, row, &first) || (pair && compose(&of, row + 1, &second));
        if (failed) break;
        if (pair && first.blocks == second.blocks) {
            digest_two(first.bytes, second.bytes, first.blocks, out + row * DIGEST);
        } else {
            digest_one(first.bytes, first.blocks, out + row * DIGEST);
            if (pair) digest_one(second.bytes, second.blocks, out + (row + 1) * DIGEST);
        }
    }
    free(first.bytes);
    free(second.bytes);
    return failed ? -1 : 0;
}
