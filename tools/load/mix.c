/* tools/load/mix.c - reading a mixture, and drawing from it. */
#include "tools/load/mix.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *word;
    bool room, ack;
} classes[] = {
#define CLASS(name, word, room, ack) {word, room, ack},
    LOAD_CLASSES(CLASS)
#undef CLASS
};

const char *load_class_word(enum load_class class)
{
    return classes[class].word;
}

bool load_class_in_room(enum load_class class)
{
    return classes[class].room;
}

bool load_class_acked(enum load_class class)
{
    return classes[class].ack;
}

static int find(const char *word, size_t len)
{
    for (int i = 0; i < LOAD_CLASS_COUNT; i++)
        if (strlen(classes[i].word) == len && memcmp(classes[i].word, word, len) == 0)
            return i;
    return -1;
}

bool load_mix_read(const char *text, struct load_mix *ret)
{
    bool given[LOAD_CLASS_COUNT] = {false};
    char *end;

    *ret = (struct load_mix){.sum = 0};
    for (;; text = end + 1) {
        size_t len = strcspn(text, "=");
        int class = find(text, len);
        unsigned long weight;

        if (class < 0 || given[class] || text[len] == '\0' ||
            !isdigit((unsigned char)text[len + 1]))
            return false;
        weight = strtoul(text + len + 1, &end, 10);
        if (weight > LOAD_WEIGHT_MAX || (*end != ',' && *end != '\0'))
            return false;
        given[class] = true;
        ret->weight[class] = (uint32_t)weight;
        ret->sum += (uint32_t)weight;
        if (*end == '\0')
            return ret->sum > 0;
    }
}

void load_mix_text(const struct load_mix *m, char *dst, size_t room)
{
    size_t at = 0;

    *dst = '\0';
    for (int i = 0; i < LOAD_CLASS_COUNT && at < room; i++)
        if (m->weight[i])
            at += (size_t)snprintf(dst + at, room - at, "%s%s=%u", at ? "," : "", classes[i].word,
                                   m->weight[i]);
}

enum load_class load_mix_pick(const struct load_mix *m, struct rh_prng *prng)
{
    uint32_t at = (uint32_t)((unsigned __int128)rh_prng_next(prng) * m->sum >> 64);
    int i = 0;

    while (at >= m->weight[i])
        at -= m->weight[i++];
    return (enum load_class)i;
}

bool load_mix_has_rooms(const struct load_mix *m)
{
    for (int i = 0; i < LOAD_CLASS_COUNT; i++)
        if (classes[i].room && m->weight[i])
            return true;
    return false;
}
