/* core/msg.c - messages and handles; the design is in msg.h. */
#include "core/msg.h"

#include <string.h>

#include "core/mem.h"

struct rh_msg *rh_msg_create(size_t room)
{
    struct rh_msg *msg = rh_mem_alloc(sizeof(*msg) + RH_MSG_HEAD_ROOM + room);

    if (!msg)
        return NULL;
    memset(msg, 0, sizeof(*msg));
    atomic_init(&msg->holders, 1);
    msg->frame_at = RH_MSG_HEAD_ROOM;
    return msg;
}

struct rh_msg *rh_msg_fit(struct rh_msg *take_msg, size_t used)
{
    struct rh_msg *msg = rh_mem_realloc(take_msg, sizeof(*msg) + used);

    return msg ? msg : take_msg;
}

void rh_msg_hold_any(struct rh_msg *msg, uint32_t more)
{
    atomic_fetch_add_explicit(&msg->holders, more, memory_order_relaxed);
}

void rh_msg_drop_any(struct rh_msg *msg)
{
    if (!msg)
        return;
    /* The only holder needs no atomic step: nobody else can add one. */
    if (atomic_load_explicit(&msg->holders, memory_order_acquire) == 1 ||
        atomic_fetch_sub_explicit(&msg->holders, 1, memory_order_acq_rel) == 1) {
        rh_mem_free(msg->shares);
        rh_mem_free(msg);
    }
}

const uint8_t *rh_msg_text(const struct rh_msg *msg, size_t *ret_len)
{
    const uint8_t *frame = rh_msg_frame(msg);
    size_t head = frame[1] < 126 ? 2 : frame[1] == 126 ? 4 : 10;

    *ret_len = msg->frame_len - head;
    return frame + head;
}

void rh_msg_put_head(struct rh_msg *msg, size_t len)
{
    size_t more = len < 126 ? 0 : len < 65536 ? 2 : 8;
    uint8_t *head = msg->bytes + RH_MSG_HEAD_ROOM - 2 - more;

    head[0] = 0x81; /* final, text */
    head[1] = (uint8_t)(more == 0 ? len : more == 2 ? 126 : 127);
    for (size_t i = 0; i < more; i++)
        head[2 + i] = (uint8_t)(len >> (8 * (more - 1 - i)));
    msg->frame_at = (uint32_t)(RH_MSG_HEAD_ROOM - 2 - more);
    msg->frame_len = (uint32_t)(2 + more + len);
}

/* ---- a copy with another attempt ---- */

/* The text of a copy while it is written, and where the offsets of the original lie in it. */
struct splice {
    const uint8_t *from;
    uint8_t *to;
    uint32_t read, wrote; /* so many bytes of each */
};

static void copy_until(struct splice *s, uint32_t read)
{
    memcpy(s->to + s->wrote, s->from + s->read, read - s->read);
    s->wrote += read - s->read;
    s->read = read;
}

static void put(struct splice *s, const char *at, size_t len)
{
    memcpy(s->to + s->wrote, at, len);
    s->wrote += (uint32_t)len;
}

static void put_ack(struct splice *s, const struct rh_msg *msg, struct rh_msg *copy, bool ack,
                    uint32_t base)
{
    copy_until(s, msg->ack_at - base);
    copy->ack_at = RH_MSG_HEAD_ROOM + s->wrote;
    copy->ack = ack;
    put(s, ack ? "true" : "false", ack ? 4 : 5);
    s->read += msg->ack ? 4 : 5;
}

static void put_attempt(struct splice *s, const struct rh_msg *msg, struct rh_msg *copy,
                        uint32_t attempt, uint32_t base)
{
    char digits[10];
    uint32_t at = sizeof(digits);

    copy_until(s, msg->attempt_at - base);
    copy->attempt_at = RH_MSG_HEAD_ROOM + s->wrote;
    do
        digits[--at] = (char)('0' + attempt % 10);
    while (attempt /= 10);
    copy->attempt_len = (uint8_t)(sizeof(digits) - at);
    put(s, digits + at, sizeof(digits) - at);
    s->read += msg->attempt_len;
}

/* The names behind the text, as they stand. */
static void copy_names(const struct rh_msg *msg, struct rh_msg *copy, uint32_t text_end)
{
    uint32_t at = text_end;

    memcpy(copy->bytes + at, msg->bytes + msg->to_at, msg->to_len);
    copy->to_at = at;
    at += msg->to_len;
    memcpy(copy->bytes + at, msg->bytes + msg->from_at, msg->from_len);
    copy->from_at = at;
    at += msg->from_len;
    memcpy(copy->bytes + at, msg->bytes + msg->id_at, msg->id_len);
    copy->id_at = at;
}

struct rh_msg *rh_msg_again(const struct rh_msg *msg, uint32_t attempt, bool ack, const char *epoch,
                            size_t epoch_len)
{
    size_t len;
    const uint8_t *text = rh_msg_text(msg, &len);
    uint32_t base = (uint32_t)(text - msg->bytes);
    size_t room = len + 16 + epoch_len + msg->to_len + msg->from_len + msg->id_len;
    struct rh_msg *copy = rh_msg_create(room);
    struct splice s = {.from = text};

    if (!copy)
        return NULL;
    memcpy(&copy->frame_at, &msg->frame_at, sizeof(*msg) - offsetof(struct rh_msg, frame_at));
    copy->shares = NULL;
    copy->entry = NULL;
    copy->seq_at = copy->key_at = copy->key_len = copy->data_at = 0;
    s.to = copy->bytes + RH_MSG_HEAD_ROOM;
    if (msg->ack_at < msg->attempt_at)
        put_ack(&s, msg, copy, ack, base);
    put_attempt(&s, msg, copy, attempt, base);
    put(&s, epoch, epoch_len);
    if (msg->ack_at > msg->attempt_at)
        put_ack(&s, msg, copy, ack, base);
    copy_until(&s, (uint32_t)len);
    rh_msg_put_head(copy, s.wrote);
    copy_names(msg, copy, RH_MSG_HEAD_ROOM + s.wrote);
    return copy;
}

void rh_msg_set_seq(struct rh_msg *msg, uint64_t seq)
{
    uint8_t *digit = msg->bytes + msg->seq_at + RH_MSG_SEQ_DIGITS;

    rh_assert(msg->seq_at && seq >= RH_MSG_SEQ_MIN && seq <= RH_MSG_SEQ_MAX);
    msg->seq = seq;
    for (int i = 0; i < RH_MSG_SEQ_DIGITS; i++, seq /= 10)
        *--digit = (uint8_t)('0' + seq % 10);
}

struct rh_handle *rh_handle_make(struct rh_handles *stock, struct rh_msg *take_msg)
{
    struct rh_handle *h = stock->free;

    if (h)
        stock->free = h->next_free;
    else
        h = rh_mem_alloc(sizeof(*h));
    if (!h)
        return NULL;
    h->msg = take_msg;
    h->uses = 1;
    h->forms = NULL;
    h->plain = NULL;
    return h;
}

void rh_handle_ref(struct rh_handle *h)
{
    h->uses++;
}

static void forms_free(struct rh_handle *h)
{
    while (h->forms) {
        struct rh_form *form = h->forms;

        h->forms = form->next;
        rh_mem_free(form);
    }
}

void rh_handle_unref(struct rh_handles *stock, struct rh_handle *h)
{
    rh_assert(h->uses > 0);
    if (--h->uses)
        return;
    if (rh_unlikely(h->forms))
        forms_free(h);
    if (rh_unlikely(h->plain))
        rh_handle_unref(stock, h->plain);
    rh_msg_drop_any(h->msg);
    h->msg = NULL;
    h->next_free = stock->free;
    stock->free = h;
}

const struct rh_form *rh_handle_form(const struct rh_handle *h, unsigned bits)
{
    const struct rh_form *form = h->forms;

    while (form && form->bits != bits)
        form = form->next;
    return form;
}

struct rh_form *rh_handle_add_form(struct rh_handle *h, unsigned bits, size_t len)
{
    struct rh_form *form = rh_mem_alloc(sizeof(*form) + len);

    if (!form)
        return NULL;
    form->next = h->forms;
    form->len = (uint32_t)len;
    form->bits = bits;
    h->forms = form;
    return form;
}

void rh_handles_fini(struct rh_handles *stock)
{
    while (stock->free) {
        struct rh_handle *h = stock->free;

        stock->free = h->next_free;
        rh_mem_free(h);
    }
}
