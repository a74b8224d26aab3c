/* Goal    the sum is CRC32C, the same by both ways, wherever the bytes lie and however they are cut.
 * Method  the vectors of RFC 3720, B.4, and random bytes. */
#include "core/crc32c.h"

#include "core/base.h"
#include "tests/rh_test.h"

static void check(const void *at, size_t len, uint32_t sum)
{
    RH_EQ_U64(rh_crc32c(0, at, len), sum);
    RH_EQ_U64(rh_crc32c_by_table(0, at, len), sum);
    if (rh_crc32c_has_instruction())
        RH_EQ_U64(rh_crc32c_by_instruction(0, at, len), sum);
}

RH_TEST(crc32c, the_vectors_of_rfc_3720)
{
    static const uint8_t read_pdu[48] = {0x01, 0xc0, 0, 0,    0,    0, 0, 0,    0,    0, 0,    0,
                                         0,    0,    0, 0,    0x14, 0, 0, 0,    0,    0, 0x04, 0,
                                         0,    0,    0, 0x14, 0,    0, 0, 0x18, 0x28, 0, 0,    0,
                                         0,    0,    0, 0,    0x02, 0, 0, 0,    0,    0, 0,    0};
    uint8_t bytes[32];

    memset(bytes, 0, sizeof(bytes));
    check(bytes, sizeof(bytes), 0x8a9136aa);
    memset(bytes, 0xff, sizeof(bytes));
    check(bytes, sizeof(bytes), 0x62a8ab43);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = i;
    check(bytes, sizeof(bytes), 0x46dd794e);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = 31 - i;
    check(bytes, sizeof(bytes), 0x113fdb5c);
    check(read_pdu, sizeof(read_pdu), 0xd9963a56);
    check("123456789", 9, 0xe3069283);
    check("", 0, 0);
}

RH_TEST(crc32c, both_ways_agree_wherever_the_bytes_lie_and_end)
{
    uint8_t bytes[300];

    for (unsigned round = 0; round < 2000; round++) {
        const size_t len = rh_test_rand() % (sizeof(bytes) - 8), from = rh_test_rand() % 8;
        const uint32_t seed = (uint32_t)rh_test_rand();

        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)rh_test_rand();
        if (rh_crc32c_has_instruction())
            RH_OK_IF(rh_crc32c_by_table(seed, bytes + from, len) ==
                     rh_crc32c_by_instruction(seed, bytes + from, len));
    }
}

RH_TEST(crc32c, a_sum_goes_on_behind_a_cut)
{
    uint8_t bytes[100];

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)rh_test_rand();
    for (size_t cut = 0; cut <= sizeof(bytes); cut++)
        RH_OK_IF(rh_crc32c(rh_crc32c(7, bytes, cut), bytes + cut, sizeof(bytes) - cut) ==
                 rh_crc32c(7, bytes, sizeof(bytes)));
}
