/* core/date.h - a moment as a date of the calendar, in UTC.
 *
 * Threads    no state: any. gmtime_r would take libc's lock.
 * Limits     years 1970 to 9999; later ones begin anew at 0000.
 */
#ifndef RH_DATE_H
#define RH_DATE_H

#include <stdint.h>

struct rh_date {
    unsigned year;
    unsigned month;   /* 1 to 12 */
    unsigned day;     /* 1 to 31 */
    unsigned weekday; /* 0: Sunday */
    unsigned hour, minute, second;
};

struct rh_date rh_date_of(uint64_t unix_s);

#endif
