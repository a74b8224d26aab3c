/* tools/load/mix.h - the classes of messages that modes ack and mixed send, and their shares.
 *
 *     send          message.send                    publish        room.publish
 *     ack           message.send with ack           publish_ack    room.publish with ack
 *     ping          ping, whose answer is the message itself
 *
 * A mixture gives each class a weight; which one a message gets is drawn anew each time.
 *
 * Threads    any.
 */
#ifndef LOAD_MIX_H
#define LOAD_MIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/prng.h"

#define LOAD_WEIGHT_MAX 1000000

/* name, the word for it, is it in a room, is it acknowledged */
#define LOAD_CLASSES(X)                                                                            \
    X(SEND, "send", false, false)                                                                  \
    X(ACK, "ack", false, true)                                                                     \
    X(PUBLISH, "publish", true, false)                                                             \
    X(PUBLISH_ACK, "publish_ack", true, true)                                                      \
    X(PING, "ping", false, false)

enum load_class {
#define LOAD_CLASS_NAME(name, word, room, ack) LOAD_CLASS_##name,
    LOAD_CLASSES(LOAD_CLASS_NAME)
#undef LOAD_CLASS_NAME
        LOAD_CLASS_COUNT
};

struct load_mix {
    uint32_t weight[LOAD_CLASS_COUNT];
    uint32_t sum; /* above 0 */
};

const char *load_class_word(enum load_class class);
bool load_class_in_room(enum load_class class);
bool load_class_acked(enum load_class class);

/* Reads "send=40,ack=20": classes that are not named get nothing. False: it is not that. */
bool load_mix_read(const char *text, struct load_mix *ret);
/* The same words, into `dst`. */
void load_mix_text(const struct load_mix *m, char *dst, size_t room);

enum load_class load_mix_pick(const struct load_mix *m, struct rh_prng *prng);
bool load_mix_has_rooms(const struct load_mix *m);

#endif
