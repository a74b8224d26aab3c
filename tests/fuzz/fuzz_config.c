/* tests/fuzz/fuzz_config.c - any bytes as a YAML file.
 *
 * Goal    a file never crashes the loader; what it refuses leaves the defaults untouched and is
 *         explained in one printable line; what it takes, printed and set again, is the same.
 * Method  the bytes go through rh_config_load_text as they are.
 */
#include <string.h>

#include "core/config.h"
#include "core/ringhub.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* Sets each key of `arg` to the value that another configuration printed. */
static void set_again(void *arg, const char *key, const char *value, const char *standard,
                      const char *help)
{
    rh_assert(rh_config_set(arg, key, value, "again", NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct rh_config *standard = NULL;
    struct rh_config *cfg = NULL;
    struct rh_fault fault = {""};
    int rc;

    rh_assert(rh_config_create(&standard) == 0 && rh_config_copy(standard, &cfg) == 0);
    rc = rh_config_load_text(cfg, "fuzz.yaml", bytes, len, &fault);
    if (rc < 0) {
        rh_assert(rc == RH_EINVAL || rc == RH_EUNSUPPORTED);
        rh_assert(!memcmp(cfg, standard, sizeof(*cfg)));
        rh_assert(!strncmp(fault.text, "fuzz.yaml:", 10) && !strpbrk(fault.text, "\n\r\x1b"));
    } else {
        char text[RH_CONFIG_PRINTED];
        char again[RH_CONFIG_PRINTED];
        const struct rh_config_key *key;

        rh_config_print(cfg, set_again, standard);
        for (size_t i = 0; (key = rh_config_key(i)); i++) {
            if (key->slot < 0)
                continue;
            rh_config_value(cfg, key, text, sizeof(text));
            rh_config_value(standard, key, again, sizeof(again));
            rh_assert(!strcmp(text, again));
        }
        rc = rh_config_check(cfg, &fault);
        rh_assert(rc == 0 || (rc == RH_EINVAL && fault.text[0]));
    }
    rh_config_destroy(cfg);
    rh_config_destroy(standard);
    return 0;
}
