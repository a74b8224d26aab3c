/* tests/core/test_date.c - the calendar, against libc's. */
#include "tests/rh_test.h"

#include <time.h>

#include "core/date.h"

static void expect_as_libc(uint64_t unix_s)
{
    time_t t = (time_t)unix_s;
    struct tm tm;
    struct rh_date date = rh_date_of(unix_s);

    RH_OK_IF(gmtime_r(&t, &tm) != NULL);
    RH_EQ_U64(date.year, (unsigned)tm.tm_year + 1900u);
    RH_EQ_U64(date.month, (unsigned)tm.tm_mon + 1u);
    RH_EQ_U64(date.day, (unsigned)tm.tm_mday);
    RH_EQ_U64(date.weekday, (unsigned)tm.tm_wday);
    RH_EQ_U64(date.hour, (unsigned)tm.tm_hour);
    RH_EQ_U64(date.minute, (unsigned)tm.tm_min);
    RH_EQ_U64(date.second, (unsigned)tm.tm_sec);
}

/* Goal    every day of the calendar is the right one.
 * Method  the first and the last second of each day from 1970 to 2500, against gmtime_r. */
RH_TEST(date, of_every_day_is_as_libc_says)
{
    for (uint64_t day = 0; day < 530ull * 366; day++) {
        expect_as_libc(day * 86400);
        expect_as_libc(day * 86400 + 86399);
    }
}

RH_TEST(date, of_random_moments_is_as_libc_says)
{
    for (unsigned i = 0; i < 100000; i++)
        expect_as_libc(rh_test_rand() % 253402300800u); /* the year 10000 */
}

RH_TEST(date, years_begin_anew_behind_9999)
{
    RH_EQ_U64(rh_date_of(253402300799u).year, 9999);
    RH_EQ_U64(rh_date_of(253402300800u).year, 0);
}
