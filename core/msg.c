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
        atomic_fetch_sub_explicit(&msg->holders, 1, memory_order_acq_rel) == 1)
        rh_mem_free(msg);
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
