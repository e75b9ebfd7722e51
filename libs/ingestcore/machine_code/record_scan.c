/* Passes over the bytes of a CSV, 64 at a time: where its records end, and which of them hold an odd number.
 *
 * The rules are those of ingestcore/tabular/row_ends.py, for dialects without escape and comment characters. A byte that
 * means something is looked at by itself; all others are passed over by SSE2, which every x86-64 has.
 */

#if !defined(__x86_64__)
#error "SSE2 of x86-64 only; elsewhere the installation goes without this library"
#endif

#include <emmintrin.h>
#include <stdint.h>
#include <string.h>

enum { CHUNK = 64, LF = '\n', CR = '\r' };

struct chunk {
    __m128i part[CHUNK / 16];
};

/* What is beyond the end reads as zeros, which mean nothing. */
static inline struct chunk load(const uint8_t *data, int64_t left) {
    struct chunk chunk;
    uint8_t last[CHUNK] = {0};
    if (left < CHUNK) data = memcpy(last, data, (size_t)left);
    for (int i = 0; i < CHUNK / 16; i++) chunk.part[i] = _mm_loadu_si128((const __m128i *)data + i);
    return chunk;
}

/* -> bit i: byte i is this one */
static inline uint64_t equal(const struct chunk *chunk, int byte) {
    const __m128i wanted = _mm_set1_epi8((char)byte);
    uint64_t bits = 0;
    for (int i = 0; i < CHUNK / 16; i++)
        bits |= (uint64_t)(uint16_t)_mm_movemask_epi8(_mm_cmpeq_epi8(chunk->part[i], wanted)) << (16 * i);
    return bits;
}

static inline int is_digit(uint8_t byte) { return (uint8_t)(byte - '0') < 10; }

static inline const uint8_t *digits(const uint8_t *at, const uint8_t *end) {
    while (at < end && is_digit(*at)) at++;
    return at;
}

static inline const uint8_t *sign(const uint8_t *at, const uint8_t *end) {
    return at + (at < end && (*at == '-' || *at == '+'));
}

static int usual_integer(const uint8_t *at, const uint8_t *end) {
    const uint8_t *first = sign(at, end);
    return end - first >= 1 && end - first <= 18 && digits(first, end) == end;
}

static int usual_float(const uint8_t *at, const uint8_t *end) {
    const uint8_t *first = sign(at, end), *point = digits(first, end), *rest = point;
    if (rest < end && *rest == '.') rest = digits(rest + 1, end);
    if (rest - first < 1 + (rest > point)) return 0;
    if (rest == end) return 1;
    const uint8_t *exponent = sign(rest + 1, end);
    return (*rest | 0x20) == 'e' && end - exponent >= 1 && end - exponent <= 2 && digits(exponent, end) == end;
}

/* Two digits, from `least` to `most`. */
static inline int between(const uint8_t *at, int least, int most) {
    const int number = 10 * (at[0] - '0') + at[1] - '0';
    return is_digit(at[0]) && is_digit(at[1]) && number >= least && number <= most;
}

static int usual_date(const uint8_t *at, const uint8_t *end) {
    return end - at == 10 && digits(at, at + 4) == at + 4 && at[4] == '-' && between(at + 5, 1, 12) && at[7] == '-' &&
           between(at + 8, 1, 31);
}

static int usual_time(const uint8_t *at, const uint8_t *end) {
    if (end - at < 11) return usual_date(at, end);
    return usual_date(at, at + 10) && (at[10] == 'T' || at[10] == ' ') && end - at >= 16 && between(at + 11, 0, 23) &&
           at[13] == ':' && between(at + 14, 0, 59) &&
           (end - at == 16 || (end - at >= 19 && at[16] == ':' && between(at + 17, 0, 59)));
}

enum kind { ANYTHING, INTEGER, FLOAT, DATE, TIMESTAMP };

/* Whether a field looks like what its column holds. One that does not may still be right: it is judged elsewhere. */
static inline int usual(enum kind kind, const uint8_t *at, const uint8_t *end, int quote) {
    if (kind == ANYTHING || at == end) return 1;
    if (*at == quote && end - at > 1 && end[-1] == quote) at++, end--;
    switch (kind) {
    case INTEGER: return usual_integer(at, end);
    case FLOAT: return usual_float(at, end);
    case DATE: return usual_date(at, end);
    default: return usual_time(at, end);
    }
}

struct quotes {
    int quote; /* -1: none */
    int doubled;
    int inside;
    int64_t second; /* place of a quote that only doubles the one before */
};

/* A quote outside quotes opens only at a field's start, inside it closes unless it is doubled. */
static inline void take_quote(struct quotes *of, const uint8_t *data, int64_t size, int64_t at, int starts_field) {
    if (at == of->second) return;
    if (!of->inside)
        of->inside = starts_field;
    else if (of->doubled && at + 1 < size && data[at + 1] == of->quote)
        of->second = at + 1;
    else
        of->inside = 0;
}

/* Exclusive end offsets of the complete records, into `ends`. A CR that is the last byte decides nothing yet.
 * -> how many; -1: more than `room` */
int64_t ingest_record_ends(const uint8_t *data, int64_t size, int delimiter, int quote, int doubled, int64_t *ends,
                           int64_t room) {
    struct quotes quotes = {quote, doubled, 0, -1};
    int64_t count = 0;
    for (int64_t base = 0; base < size; base += CHUNK) {
        const struct chunk chunk = load(data + base, size - base);
        uint64_t marks = equal(&chunk, LF) | equal(&chunk, CR) | (quote < 0 ? 0 : equal(&chunk, quote));
        for (; marks; marks &= marks - 1) {
            const int64_t at = base + __builtin_ctzll(marks);
            if (data[at] == quote) {
                const int before = at ? data[at - 1] : LF;
                take_quote(&quotes, data, size, at, before == delimiter || before == LF || before == CR);
            } else if (!quotes.inside && (data[at] == LF || (at + 1 < size && data[at + 1] != LF))) {
                if (count == room) return -1;
                ends[count++] = at + 1;
            }
        }
    }
    return count;
}

/* Numbers, from 0 and ascending, of records in which a field does not look like what its column holds: `kinds`, by place.
 * `ends`: of all records; the last may lack its line end.
 * -> how many; `room`: perhaps more */
int64_t ingest_odd_records(const uint8_t *data, int64_t size, const int64_t *ends, int64_t records, int delimiter,
                           int quote, int doubled, const uint8_t *kinds, int64_t columns, int64_t *odd, int64_t room) {
    struct quotes quotes = {quote, doubled, 0, -1};
    int64_t count = 0, record = 0, column = 0, field = 0, next = 0;
    for (int64_t base = 0; base < size; base += CHUNK) {
        const struct chunk chunk = load(data + base, size - base);
        uint64_t ending = 0;
        for (; next < records && ends[next] <= base + CHUNK; next++) ending |= 1ull << (ends[next] - 1 - base);
        uint64_t marks = ending | equal(&chunk, delimiter) | (quote < 0 ? 0 : equal(&chunk, quote));
        for (; marks; marks &= marks - 1) {
            const int bit = __builtin_ctzll(marks);
            const int64_t at = base + bit;
            if (data[at] == quote) take_quote(&quotes, data, size, at, at == field);
            const int delimits = data[at] == delimiter && !quotes.inside, ends_record = ending >> bit & 1;
            if (!delimits && !ends_record) continue;
            if (column >= 0 && column < columns) {
                int64_t end = delimits ? at : at + 1;
                if (ends_record && end > field && data[end - 1] == LF) end--;
                if (ends_record && end > field && data[end - 1] == CR) end--;
                if (!usual(kinds[column], data + field, data + end, quote)) {
                    if (count == room) return room;
                    odd[count++] = record;
                    column = -columns; /* the rest of the record is of no interest */
                }
            }
            column++;
            field = at + 1;
            if (ends_record) {
                column = quotes.inside = 0;
                record++;
            }
        }
    }
    return count;
}
