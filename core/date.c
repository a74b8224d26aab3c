/* core/date.c - days to a date by the 400-year cycle of the calendar.
 *
 * Years are taken to begin in March, so that the leap day is a year's last one, and the lengths of
 * the months before it follow one rule.
 */
#include "core/date.h"

struct rh_date rh_date_of(uint64_t unix_s)
{
    uint32_t of_day = (uint32_t)(unix_s % 86400);
    uint64_t days = unix_s / 86400 + 719468; /* since 0000-03-01, a Wednesday */
    uint64_t cycle = days / 146097;
    uint32_t in_cycle = (uint32_t)(days % 146097);
    uint32_t year =
        (in_cycle - in_cycle / 1460 + in_cycle / 36524 - in_cycle / 146096) / 365; /* in cycle */
    uint32_t in_year = in_cycle - (365 * year + year / 4 - year / 100);
    uint32_t month = (5 * in_year + 2) / 153; /* from March */

    return (struct rh_date){
        .year = (unsigned)((year + cycle * 400 + (month >= 10)) % 10000),
        .month = month < 10 ? month + 3 : month - 9,
        .day = in_year - (153 * month + 2) / 5 + 1,
        .weekday = (unsigned)((days + 3) % 7),
        .hour = of_day / 3600,
        .minute = of_day / 60 % 60,
        .second = of_day % 60,
    };
}
