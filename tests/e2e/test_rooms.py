"""Rooms: who is in, who is told, what a message is and to whom it goes (PROTOCOL 3 and 4).

A room's home and its members are on different shards. So "nothing arrives" is always shown by a
later message of the same room, or of one that the silent client has joined meanwhile, being the
next thing that does arrive.
"""

import asyncio
import json
import time
import unittest

import raw
from clients import ClientCase, envelope, path_with_rooms, place
from test_envelope import OPAQUE, SPACED, member
from test_priority import BIG, HIGH, KERNEL_TAKES

NAMES = ('with "quotes"\\', "a b+c&d=e", "a,b@1@c", "été😀", "%2C", "x" * 128, "/", "@", ",")
EPOCH = "^[A-Za-z0-9_-]{1,32}$"


class Joining(ClientCase):

    async def test_the_answer_has_its_fields(self):
        anna = await self.client("join-anna")
        answer = await anna.request("room.join", {"room": "join"})
        self.assertEqual((answer["type"], answer["code"]), ("response", 200))
        data = answer["data"]
        self.assertEqual(set(data), {"room", "members", "seq", "epoch"})
        self.assertEqual((data["room"], data["members"], data["seq"]), ("join", 1, 0))
        self.assertRegex(data["epoch"], EPOCH)

    async def test_members_counts_users_and_everybody_sees_the_same_room(self):
        clients = await self.clients(["same-anna", "same-bert", "same-anna", "same-carl"])
        answers = [await client.join("same") for client in clients]
        self.assertEqual([data["members"] for data in answers], [1, 2, 2, 3])
        self.assertEqual(len({data["epoch"] for data in answers}), 1)
        other = await clients[0].join("same-other")
        self.assertNotEqual(other["epoch"], answers[0]["epoch"])

    async def test_the_answer_tells_the_rooms_seq(self):
        anna, bert = await self.clients(["seqs-anna", "seqs-bert"])
        await anna.join("seqs")
        await anna.publish_row("seqs", range(7))
        self.assertEqual((await bert.join("seqs"))["seq"], 7)

    async def test_the_others_are_told_and_the_joiner_is_not(self):
        anna, bert = await self.clients(["told-anna", "told-bert"])
        await anna.join("told")
        await bert.join("told")
        self.assertEqual(await anna.notify("room.joined"),
                         {"room": "told", "user": "told-bert", "members": 2})
        await bert.publish("told", "marker")
        for client in (anna, bert):
            self.assertEqual((await client.notify("room.message"))["content"], "marker")

    async def test_each_subscribed_connection_of_the_others_is_told(self):
        *anna, bert = await self.clients(["each-anna", "each-anna", "each-bert"])
        for client in anna:
            await client.join("each")
        await bert.join("each")
        for client in anna:
            self.assertEqual((await client.notify("room.joined"))["user"], "each-bert")
        await bert.leave("each")
        for client in anna:
            self.assertEqual((await client.notify("room.left"))["user"], "each-bert")

    async def test_it_is_told_once_per_user(self):
        anna, bert = await self.in_room("once", ["once-anna", "once-bert"])
        device = await self.client("once-bert")
        self.assertEqual((await device.join("once"))["members"], 2)
        self.assertEqual((await bert.leave("once"))["members"], 2)
        await anna.publish("once", "marker")
        for client in (anna, device):
            self.assertEqual((await client.notify("room.message"))["content"], "marker")
        self.assertEqual((await device.leave("once"))["members"], 1)
        self.assertEqual(await anna.notify("room.left"),
                         {"room": "once", "user": "once-bert", "members": 1})

    async def test_joining_again_changes_nothing(self):
        anna, bert = await self.in_room("again", ["again-anna", "again-bert"])
        await anna.publish("again", "first")
        for client in (anna, bert):
            await client.read_room("again", 1, 1)
        again = await bert.join("again")
        self.assertEqual((again["room"], again["members"], again["seq"]), ("again", 2, 1))
        self.assertNotIn("recovered", again)
        await bert.publish("again", "once")
        for client in (anna, bert):  # nobody is told, and nothing comes twice
            await client.read_room("again", 2, 2)
        await bert.leave("again")  # once is enough
        await anna.notify("room.left")
        await anna.publish("again", "alone")
        await anna.read_room("again", 3, 3)
        await bert.join("again")
        await anna.notify("room.joined")
        await anna.publish("again", "back")
        await bert.read_room("again", 4, 4)

    async def test_rooms_of_every_name(self):
        for name in NAMES:
            with self.subTest(name):
                anna, bert = await self.clients(["names-anna", "names-bert"])
                self.assertEqual((await anna.join(name))["room"], name)
                escaped = json.dumps(name, ensure_ascii=False).replace("e", "\\u0065")
                await bert.send('{"type":"request","event":"room.join","request_id":"j",'
                                '"data":{"room":%s}}' % escaped)
                self.assertEqual((await bert.answer("j"))["data"]["members"], 2)
                self.assertEqual((await anna.notify("room.joined"))["room"], name)
                await bert.publish(name, 1)
                self.assertEqual((await anna.read_room(name, 1, 1))[0]["room"], name)
                await anna.close()
                await bert.close()

    async def test_names_that_differ_by_a_byte_are_different_rooms(self):
        anna = await self.client("differ-anna")
        for name in ("differ", "Differ", "differ ", " differ", "differé", "differe\u0301"):
            self.assertEqual((await anna.join(name))["members"], 1)
            self.assertEqual((await anna.publish(name, 1))["seq"], 1)

    async def test_a_room_and_a_user_of_one_name_are_two_things(self):
        anna, bert = await self.clients(["namesake", "namesake-bert"])
        await bert.join("namesake")
        await bert.publish("namesake", "to the room")
        await bert.send_message("namesake", "to the user")
        self.assertEqual((await anna.message())["content"], "to the user")
        await bert.read_room("namesake", 1, 1)
        await bert.quiet()

    async def test_bad_requests(self):
        anna = await self.client("badjoin-anna")
        await self.assert_bad_names(anna, "room.join")
        await self.assert_bad_requests(anna, "room.join", {
            "since is negative": '{"room":"badjoin","since":-1}',
            "since is a text": '{"room":"badjoin","since":"1"}',
            "since is no whole number": '{"room":"badjoin","since":1.5}',
            "since is an object": '{"room":"badjoin","since":{}}',
            "epoch is a number": '{"room":"badjoin","since":1,"epoch":1}',
            "since twice": '{"room":"badjoin","since":1,"since":1}',
        })
        answer = await anna.request("room.publish", {"room": "badjoin", "content": 1})
        self.assert_error(answer, 404, "not_found")  # none of them has made it

    async def test_without_a_request_id_it_is_done_and_not_answered(self):
        anna, bert = await self.clients(["mutejoin-anna", "mutejoin-bert"])
        await anna.join("mutejoin")
        await bert.send({"type": "request", "event": "room.join", "data": {"room": "mutejoin"}})
        await anna.notify("room.joined")
        await anna.publish("mutejoin", 1)
        await bert.read_room("mutejoin", 1, 1)


class Leaving(ClientCase):
    options = {"resume.window": "30m"}  # nothing that is awaited here comes from its end

    async def test_the_answer_has_its_fields_and_the_others_are_told(self):
        anna, bert = await self.in_room("leave", ["leave-anna", "leave-bert"])
        await anna.publish("leave", 1)
        joined = await anna.join("leave")
        answer = await bert.request("room.leave", {"room": "leave"})
        self.assertEqual((answer["type"], answer["code"]), ("response", 200))
        self.assertEqual(answer["data"], {"room": "leave", "members": 1, "seq": 1,
                                          "epoch": joined["epoch"]})
        await anna.read_room("leave", 1, 1)
        self.assertEqual(await anna.notify("room.left"),
                         {"room": "leave", "user": "leave-bert", "members": 1})

    async def test_who_has_left_gets_nothing_more(self):
        anna, bert = await self.in_room("gone", ["gone-anna", "gone-bert"])
        await bert.leave("gone")
        await anna.publish("gone", "not for you")
        await bert.join("gone")
        await anna.publish("gone", "marker")
        await bert.read_room("gone", 2, 2)

    async def test_one_session_leaves_and_the_others_of_its_user_stay(self):
        one, other, third = await self.clients(["stay-anna"] * 3)
        for client in (one, other):
            await client.join("stay")
        await one.leave("stay")
        await other.publish("stay", "still in")
        await other.read_room("stay", 1, 1)
        for client in (one, third):  # third never was in
            await client.join("stay")
        await other.publish("stay", "marker")
        for client in (one, other, third):
            await client.read_room("stay", 2, 2)

    async def test_who_is_not_in_may_leave(self):
        anna, bert = await self.in_room("idle", ["idle-anna", "idle-bert"])
        carl = await self.client("idle-carl")
        self.assertEqual((await carl.leave("idle"))["members"], 2)
        await bert.leave("idle")
        self.assertEqual((await bert.leave("idle"))["members"], 1)
        await anna.notify("room.left")
        await anna.publish("idle", "marker")
        await anna.read_room("idle", 1, 1)  # it was told once, and not of carl

    async def test_an_unknown_room_is_404_and_stays_unknown(self):
        anna = await self.client("unknown-anna")
        for event in ("room.leave", "room.members", "room.leave"):
            self.assert_error(await anna.request(event, {"room": "unknown"}), 404, "not_found")
        await self.assert_bad_names(anna, "room.leave")

    async def test_the_last_one_leaves_and_the_room_lives_on(self):
        anna = await self.client("last-anna")
        joined = await anna.join("last")
        await anna.publish("last", 1)
        self.assertEqual((await anna.leave("last"))["members"], 0)
        again = await anna.join("last")
        self.assertEqual((again["members"], again["seq"], again["epoch"]),
                         (1, 1, joined["epoch"]))

    async def test_a_goodbye_leaves_all_rooms(self):
        anna, bert = await self.clients(["bye-anna", "bye-bert"])
        rooms = [f"bye-{number}" for number in range(8)]
        for room in rooms:
            await self.join_all(room, [anna, bert])
        await bert.close()
        told = [await anna.notify("room.left") for _ in rooms]
        self.assertEqual(sorted(data["room"] for data in told), rooms)
        self.assertEqual({(data["user"], data["members"]) for data in told}, {("bye-bert", 1)})


class Publishing(ClientCase):

    async def test_a_message_has_its_fields(self):
        anna, bert = await self.in_room("fields", ["rf-anna", "rf-bert"])
        answer = await anna.request("room.publish", {"room": "fields", "content": "hello"})
        self.assertEqual((answer["type"], answer["code"]), ("response", 200))
        self.assertEqual(set(answer["data"]), {"id", "seq", "recipients"})
        self.assertEqual((answer["data"]["seq"], answer["data"]["recipients"]), (1, 2))
        got = await bert.receive()
        self.assertEqual(set(got), {"type", "event", "data", "timestamp"})
        self.assertEqual((got["type"], got["event"]), ("notify", "room.message"))
        self.assertLess(abs(got["data"].pop("created_at") - time.time() * 1000), 60_000)
        self.assertEqual(got["data"], {
            "room": "fields", "seq": 1, "id": answer["data"]["id"], "from": "rf-anna",
            "content": "hello", "ack": False, "attempt": 1, "priority": "normal"})

    async def test_given_fields_are_handed_on(self):
        anna, bert = await self.in_room("given", ["rg-anna", "rg-bert"])
        given = {"id": "My-id_1.2:3", "priority": "high", "key": "EUR/USD é"}
        self.assertEqual((await anna.publish("given", 1, **given))["id"], given["id"])
        for client in (anna, bert):
            data, = await client.read_room("given", 1, 1)
            self.assertEqual({name: data[name] for name in given}, given)

    async def test_a_generated_id_is_a_valid_id_and_unique(self):
        anna = await self.client("ids-anna")
        await anna.join("ids")
        ids = [data["id"] for data in await anna.publish_row("ids", range(100))]
        self.assertEqual(len(set(ids)), 100)
        for generated in ids:
            self.assertRegex(generated, r"^[A-Za-z0-9._:-]{1,64}$")
        self.assertEqual([data["id"] for data in await anna.read_room("ids", 1, 100)], ids)

    async def test_every_subscribed_connection_gets_it_the_publishers_too(self):
        clients = await self.clients(["all-anna", "all-anna", "all-bert", "all-bert", "all-carl"])
        for client in clients:
            await client.join("all")
        answer = await clients[0].publish("all", "x")
        self.assertEqual(answer["recipients"], 3)  # users
        for client in clients:
            got = await client.receive()
            while got["event"] == "room.joined":
                got = await client.receive()
            self.assertEqual((got["event"], got["data"]["id"]), ("room.message", answer["id"]))

    async def test_exclude_self_excludes_the_user(self):
        *anna, bert = await self.clients(["self-anna", "self-anna", "self-bert"])
        for client in (bert, *anna):
            await client.join("self")
        await bert.notify("room.joined")
        answer = await anna[0].publish("self", "for the others", exclude_self=True)
        self.assertEqual((answer["seq"], answer["recipients"]), (1, 1))
        self.assertEqual((await anna[0].publish("self", "for all", exclude_self=False))
                         ["recipients"], 2)
        await bert.read_room("self", 1, 2)
        for client in anna:
            await client.read_room("self", 2, 2)

    async def test_the_only_member_may_exclude_itself(self):
        anna = await self.client("lonely-anna")
        await anna.join("lonely")
        self.assertEqual((await anna.publish("lonely", 1, exclude_self=True))["recipients"], 0)
        await anna.publish("lonely", "marker")
        await anna.read_room("lonely", 2, 2)

    async def test_seq_is_gapless_from_1_on_whoever_publishes(self):
        clients = await self.in_room("gapless", [f"gapless-{i}" for i in range(4)])
        seqs = [(await clients[number % 4].publish("gapless", number))["seq"]
                for number in range(40)]
        self.assertEqual(seqs, list(range(1, 41)))
        for client in clients:
            row = await client.read_room("gapless", 1, 40)
            self.assertEqual([data["content"] for data in row], list(range(40)))

    async def test_content_is_handed_on_byte_for_byte(self):
        anna, bert = await self.in_room("bytes", ["rb-anna", "rb-bert"])
        for content in OPAQUE + SPACED:
            with self.subTest(content[:40]):
                await anna.send('{"type":"request","event":"room.publish","data":'
                                '{"content": %s ,"room":"bytes"}}' % content)
                for client in (anna, bert):
                    self.assertEqual(member(await client.receive_text(), "content"), content)

    async def test_large_contents_arrive_whole(self):
        anna, bert = await self.in_room("large", ["rl-anna", "rl-bert"])
        for seq, size in enumerate((100, 2_000, 4_096, 65_535, 65_536, 500_000, 1_000_000), 1):
            content = ("%d:" % size).ljust(size, "x")
            await anna.publish("large", content)
            for client in (anna, bert):
                self.assertEqual((await client.read_room("large", seq, seq))[0]["content"], content)

    async def test_without_a_request_id_it_is_published_and_not_answered(self):
        anna, bert = await self.in_room("mute", ["rm-anna", "rm-bert"])
        await anna.send({"type": "request", "event": "room.publish",
                         "data": {"room": "mute", "content": 1}})
        for client in (anna, bert):
            await client.read_room("mute", 1, 1)
        await anna.quiet()
        await anna.send({"type": "request", "event": "room.publish",
                         "data": {"room": "mute-unknown", "content": 1}})
        got = await anna.receive()
        self.assert_error(got, 404, "not_found")
        self.assertNotIn("request_id", got)

    async def test_who_is_no_member_is_403_and_nothing_is_published(self):
        anna, bert = await self.in_room("members-only", ["mo-anna", "mo-bert"])
        carl = await self.client("mo-carl", user_type="agent", role="agent")
        publish = {"room": "members-only", "content": "no"}
        self.assert_error(await carl.request("room.publish", publish), 403, "forbidden")
        await bert.leave("members-only")
        self.assert_error(await bert.request("room.publish", publish), 403, "forbidden")
        await anna.notify("room.left")
        self.assertEqual((await anna.publish("members-only", "yes"))["seq"], 1)
        await anna.read_room("members-only", 1, 1)

    async def test_an_unknown_room_is_404_and_stays_unknown(self):
        admin = await self.client("nowhere-anna", role="admin")
        for client in (admin, await self.client("nowhere-bert")):
            for event in ("room.publish", "room.members"):
                answer = await client.request(event, {"room": "nowhere", "content": 1})
                self.assert_error(answer, 404, "not_found")

    async def test_the_role_admin_publishes_anywhere(self):
        anna, bert = await self.in_room("admins", ["admins-anna", "admins-bert"])
        admin = await self.client("admins-carl", role="admin")
        answer = await admin.publish("admins", "notice", exclude_self=True)
        self.assertEqual((answer["seq"], answer["recipients"]), (1, 2))
        for client in (anna, bert):
            self.assertEqual((await client.read_room("admins", 1, 1))[0]["from"], "admins-carl")
        await admin.join("admins")
        await admin.publish("admins", "marker")
        await admin.read_room("admins", 2, 2)  # what it published as a stranger is not for it

    async def test_only_the_role_does(self):
        anna = await self.client("type-anna")
        await anna.join("type")
        bert = await self.client("type-bert", user_type="admin")
        answer = await bert.request("room.publish", {"room": "type", "content": 1})
        self.assert_error(answer, 403, "forbidden")

    async def test_a_user_is_a_member_by_any_of_its_sessions(self):
        one, other = await self.clients(["any-anna"] * 2)
        await one.join("any")
        self.assertEqual((await other.publish("any", "from my other device"))["recipients"], 1)
        await one.read_room("any", 1, 1)
        await one.leave("any")
        answer = await other.request("room.publish", {"room": "any", "content": 1})
        self.assert_error(answer, 403, "forbidden")

    async def test_bad_requests_and_nothing_is_published(self):
        anna, bert = await self.in_room("bad", ["badpub-anna", "badpub-bert"])
        await self.assert_bad_names(anna, "room.publish", ',"content":1')
        room = '"room":"bad"'
        await self.assert_bad_requests(anna, "room.publish", {
            "no content": "{%s}" % room,
            "content twice": '{%s,"content":1,"content":1}' % room,
            "id is a number": '{%s,"content":1,"id":5}' % room,
            "id is empty": '{%s,"content":1,"id":""}' % room,
            "id with a space": '{%s,"content":1,"id":"a b"}' % room,
            "id not ASCII": '{%s,"content":1,"id":"é"}' % room,
            "id of 65": '{%s,"content":1,"id":"%s"}' % (room, "i" * 65),
            "ack is a text": '{%s,"content":1,"ack":"true"}' % room,
            "exclude_self is a text": '{%s,"content":1,"exclude_self":"true"}' % room,
            "exclude_self is a number": '{%s,"content":1,"exclude_self":1}' % room,
            "unknown priority": '{%s,"content":1,"priority":"top"}' % room,
            "priority is a number": '{%s,"content":1,"priority":1}' % room,
            "key is a number": '{%s,"content":1,"key":1}' % room,
            "key is an object": '{%s,"content":1,"key":{}}' % room,
        })
        self.assertEqual((await anna.publish("bad", "marker"))["seq"], 1)
        for client in (anna, bert):
            await client.read_room("bad", 1, 1)


class Creating(ClientCase):

    async def test_the_answer_is_the_room_and_it_exists(self):
        anna, bert = await self.clients(["create-anna", "create-bert"])
        answer = await anna.request("room.create", {"room": "create"})
        self.assertEqual((answer["type"], answer["code"], answer["data"]),
                         ("response", 200, {"room": "create"}))
        joined = await bert.join("create")
        self.assertEqual(set(joined), {"room", "members", "seq", "epoch"})
        self.assertEqual((joined["members"], joined["seq"]), (1, 0))

    async def test_the_creator_is_not_a_member_by_that(self):
        anna, bert = await self.clients(["creator-anna", "creator-bert"])
        await anna.ask("room.create", {"room": "creator"})
        self.assertEqual(await anna.members("creator"), [])
        answer = await anna.request("room.publish", {"room": "creator", "content": 1})
        self.assert_error(answer, 403, "forbidden")
        await bert.join("creator")
        await bert.publish("creator", 1)
        await anna.join("creator")
        await bert.publish("creator", "marker")
        await anna.read_room("creator", 2, 2)

    async def test_what_exists_is_409(self):
        anna, bert = await self.clients(["exists-anna", "exists-bert"])
        await anna.ask("room.create", {"room": "exists"})
        await bert.join("exists-auto")
        await bert.join("exists-empty")
        await bert.leave("exists-empty")
        for room in ("exists", "exists-auto", "exists-empty"):
            for client in (anna, bert):
                answer = await client.request("room.create", {"room": room})
                self.assert_error(answer, 409, "conflict")
        self.assertEqual((await anna.join("exists-auto"))["members"], 2)  # still the same one

    async def test_only_one_of_many_creates_it(self):
        clients = await self.clients([f"race-{number}" for number in range(16)])
        for number in range(5):
            answers = await asyncio.gather(*(client.request("room.create", {"room": f"r{number}"})
                                             for client in clients))
            created = [answer for answer in answers if answer["type"] == "response"]
            self.assertEqual(len(created), 1)
            for answer in answers:
                if answer is not created[0]:
                    self.assert_error(answer, 409, "conflict")

    async def test_meta_is_shown_to_who_joins(self):
        anna, bert = await self.clients(["meta-anna", "meta-bert"])
        meta = {"topic": "été", "list": [1, {"a": None}], "n": 1.50}
        await anna.ask("room.create", {"room": "meta", "meta": meta})
        self.assertEqual((await bert.join("meta"))["meta"], meta)
        self.assertEqual((await bert.join("meta", since=0))["meta"], meta)
        carl = await self.client_in("meta-carl", "meta")
        self.assertEqual((await carl.notify("room.subscribed"))["meta"], meta)
        await anna.ask("room.create", {"room": "meta-none", "meta": None})
        self.assertNotIn("meta", await bert.join("meta-none"))

    async def test_both_kinds_are_accepted(self):
        anna = await self.client("kinds-anna")
        for kind in ("group", "ticket"):
            await anna.ask("room.create", {"room": f"kind-{kind}", "kind": kind})
            await anna.join(f"kind-{kind}")
            await anna.publish(f"kind-{kind}", 1)
            await anna.read_room(f"kind-{kind}", 1, 1)

    async def test_a_full_room_is_room_full(self):
        anna, bert, device, carl, dora = await self.clients(
            ["full-anna", "full-bert", "full-bert", "full-carl", "full-dora"])
        await anna.ask("room.create", {"room": "full", "max_members": 2})
        await self.join_all("full", [anna, bert])
        self.assert_error(await carl.request("room.join", {"room": "full"}), 409, "room_full")
        self.assertEqual((await device.join("full"))["members"], 2)  # it counts users
        self.assertEqual((await anna.join("full"))["members"], 2)    # who is in is in
        answer = await carl.request("room.publish", {"room": "full", "content": 1})
        self.assert_error(answer, 403, "forbidden")
        await bert.leave("full")
        self.assert_error(await dora.request("room.join", {"room": "full"}), 409, "room_full")
        await device.leave("full")
        await anna.notify("room.left")
        self.assertEqual((await carl.join("full"))["members"], 2)
        await anna.notify("room.joined")  # and nothing was told of who was refused
        self.assert_error(await dora.request("room.join", {"room": "full"}), 409, "room_full")

    async def test_of_many_who_come_at_once_only_as_many_as_fit_get_in(self):
        clients = await self.clients([f"crowd-{number}" for number in range(24)])
        await clients[0].ask("room.create", {"room": "crowd", "max_members": 5})
        answers = await asyncio.gather(*(client.request("room.join", {"room": "crowd"})
                                         for client in clients))
        accepted = [answer for answer in answers if answer["type"] == "response"]
        self.assertEqual(sorted(answer["data"]["members"] for answer in accepted), [1, 2, 3, 4, 5])
        for answer in answers:
            if answer not in accepted:
                self.assert_error(answer, 409, "room_full")
        self.assertEqual(len(await clients[0].members("crowd")), 5)

    async def test_bad_requests_and_nothing_is_created(self):
        anna = await self.client("badcreate-anna")
        await self.assert_bad_names(anna, "room.create")
        room = '"room":"bad-create"'
        await self.assert_bad_requests(anna, "room.create", {
            "meta is a text": '{%s,"meta":"x"}' % room,
            "meta is an array": '{%s,"meta":[]}' % room,
            "max_members is a text": '{%s,"max_members":"5"}' % room,
            "max_members is negative": '{%s,"max_members":-1}' % room,
            "max_members is no whole number": '{%s,"max_members":1.5}' % room,
            "unknown kind": '{%s,"kind":"club"}' % room,
            "kind is a number": '{%s,"kind":1}' % room,
            "conflate is a text": '{%s,"conflate":"yes"}' % room,
            "conflate is a number": '{%s,"conflate":1}' % room,
            "meta twice": '{%s,"meta":{},"meta":{}}' % room,
        })
        await anna.ask("room.create", {"room": "bad-create", "max_members": 0, "conflate": False})
        self.assertEqual((await anna.join("bad-create"))["members"], 1)


class Deleting(ClientCase):

    async def test_every_member_is_told_and_removed(self):
        anna, bert, carl = await self.clients(["del-anna", "del-bert", "del-carl"])
        device = await self.client("del-carl")
        await anna.ask("room.create", {"room": "del"})
        await self.join_all("del", [bert, carl])
        await device.join("del")
        answer = await anna.request("room.delete", {"room": "del"})
        self.assertEqual((answer["type"], answer["code"], answer["data"]),
                         ("response", 200, {"room": "del"}))
        for client in (bert, carl, device):
            self.assertEqual((await client.notify("room.deleted"))["room"], "del")
        for client in (anna, bert, carl):
            for event in ("room.publish", "room.members", "room.history", "room.leave",
                          "room.delete"):
                answer = await client.request(event, {"room": "del", "content": 1})
                self.assert_error(answer, 404, "not_found")

    async def test_the_next_one_of_that_name_is_another_room(self):
        anna, bert = await self.clients(["next-anna", "next-bert"])
        await anna.ask("room.create", {"room": "next", "meta": {"life": 1}, "max_members": 2})
        await self.join_all("next", [anna, bert])
        first = await anna.join("next")
        await anna.publish_row("next", [1, 2])
        for client in (anna, bert):
            await client.read_room("next", 1, 2)
        await anna.ask("room.delete", {"room": "next"})
        for client in (anna, bert):
            await client.notify("room.deleted")
        second = await anna.join("next")
        self.assertEqual((second["members"], second["seq"]), (1, 0))
        self.assertNotEqual(second["epoch"], first["epoch"])
        self.assertNotIn("meta", second)
        publish = {"room": "next", "content": 1}
        self.assert_error(await bert.request("room.publish", publish), 403, "forbidden")
        self.assertEqual((await anna.publish("next", "new"))["recipients"], 1)
        await anna.read_room("next", 1, 1)
        await bert.join("next")
        await anna.publish("next", "marker")
        await bert.read_room("next", 2, 2)

    async def test_its_creator_or_an_admin_and_nobody_else(self):
        anna, bert = await self.clients(["may-anna", "may-bert"])
        device = await self.client("may-anna")
        admin = await self.client("may-carl", role="admin")
        typed = await self.client("may-dora", user_type="admin", role="agent")
        for deleter in (anna, device, admin):
            await anna.ask("room.create", {"room": "may"})
            await bert.join("may")
            for other in (bert, typed):
                answer = await other.request("room.delete", {"room": "may"})
                self.assert_error(answer, 403, "forbidden")
            await bert.publish("may", "it lives")
            await bert.read_room("may", 1, 1)
            await deleter.ask("room.delete", {"room": "may"})
            await bert.notify("room.deleted")

    async def test_an_admin_deletes_what_was_made_by_joining_and_a_guest_does_not(self):
        anna, bert = await self.in_room("made", ["made-anna", "made-bert"])
        self.assert_error(await bert.request("room.delete", {"room": "made"}), 403, "forbidden")
        admin = await self.client("made-carl", role="admin")
        await admin.ask("room.delete", {"room": "made"})
        for client in (anna, bert):
            await client.notify("room.deleted")

    async def test_an_unknown_room_is_404(self):
        admin = await self.client("nodel-anna", role="admin")
        self.assert_error(await admin.request("room.delete", {"room": "no-del"}), 404, "not_found")
        await self.assert_bad_names(admin, "room.delete")


class Members(ClientCase):

    async def test_items_have_their_fields_in_the_order_of_joining(self):
        before = time.time() * 1000
        bert = await self.client("mem-bert", user_type="agent", role="r")
        anna, device, carl = await self.clients(["mem-anna", "mem-anna", "mem-carl"])
        for client in (bert, anna, device, carl):
            await client.join("mem")
        page = await carl.ask("room.members", {"room": "mem"})
        self.assertEqual(set(page), {"items", "next"})
        self.assertIsNone(page["next"])
        since = [item.pop("since") for item in page["items"]]
        self.assertEqual(page["items"], [
            {"user": "mem-bert", "user_type": "agent", "devices": 1},
            {"user": "mem-anna", "user_type": "", "devices": 2},
            {"user": "mem-carl", "user_type": "", "devices": 1}])
        self.assertEqual(since, sorted(since))
        for moment in since:
            self.assertLess(before - 2_000, moment)
            self.assertLess(moment, time.time() * 1000 + 2_000)

    async def test_who_comes_back_stands_at_the_end(self):
        anna, bert = await self.in_room("back", ["back-anna", "back-bert"])
        await anna.leave("back")
        await anna.join("back")
        self.assertEqual([item["user"] for item in await bert.members("back")],
                         ["back-bert", "back-anna"])
        device = await self.client("back-bert")
        await device.join("back")
        await bert.leave("back")  # a member all the time
        self.assertEqual([item["user"] for item in await bert.members("back")],
                         ["back-bert", "back-anna"])

    async def test_only_subscribed_connections_are_its_devices(self):
        anna, other = await self.clients(["devs-anna"] * 2)
        await anna.join("devs")
        self.assertEqual([item["devices"] for item in await other.members("devs")], [1])
        await other.join("devs")
        self.assertEqual([item["devices"] for item in await other.members("devs")], [2])
        await other.leave("devs")
        self.assertEqual([item["devices"] for item in await other.members("devs")], [1])
        await other.join("devs")
        await other.close()
        await self.await_devices(anna, "devs", "devs-anna", 1)

    async def test_page_by_page(self):
        users = [f"page-{number:03}" for number in range(130)]
        asker = await self.client("page-asker")
        for client in await asyncio.gather(*(self.client(user) for user in users)):
            await client.join("page")
        first = await asker.ask("room.members", {"room": "page"})
        self.assertEqual([item["user"] for item in first["items"]], users[:100])
        self.assertIsInstance(first["next"], str)
        self.assertEqual([item["user"] for item in await asker.members("page")], users)
        for limit, sizes in ((50, [50, 50, 30]), (65, [65, 65]), (130, [130]), (1000, [130]),
                             (129, [129, 1])):
            seen, got, more = [], [], {}
            while not got or more["cursor"] is not None:
                page = await asker.ask("room.members", {"room": "page", "limit": limit, **more})
                seen += [item["user"] for item in page["items"]]
                got.append(len(page["items"]))
                more = {"cursor": page["next"]}
            self.assertEqual(seen, users, limit)
            self.assertEqual([size for size in got if size], sizes)
        self.assertEqual(len((await asker.ask("room.members", {"room": "page", "limit": 1}))
                             ["items"]), 1)

    async def test_bad_requests(self):
        anna = await self.client("badmem-anna")
        await anna.join("bad-mem")
        await self.assert_bad_names(anna, "room.members")
        await self.assert_bad_requests(anna, "room.members", {
            f"limit {limit}": '{"room":"bad-mem","limit":%s}' % limit
            for limit in ("0", "1001", "-1", "1.5", '"5"', "[]")})
        await self.assert_bad_requests(anna, "room.members", {
            "cursor is a number": '{"room":"bad-mem","cursor":1}',
            "cursor is an object": '{"room":"bad-mem","cursor":{}}'})


class AtConnect(ClientCase):
    """rooms= in the handshake's query."""

    async def subscribed(self, client, count):
        """The next `count` notifies, each a room.subscribed: {room: data}."""
        told = [await client.notify("room.subscribed") for _ in range(count)]
        self.assertEqual(len({data["room"] for data in told}), count, told)
        return {data["room"]: data for data in told}

    async def test_each_room_is_told_behind_the_welcome(self):
        anna = await self.client_in("at-anna", "at-1", "at-2", "at-3")
        told = await self.subscribed(anna, 3)
        for room in ("at-1", "at-2", "at-3"):
            self.assertEqual(set(told[room]), {"room", "members", "seq", "epoch"})
            self.assertEqual((told[room]["members"], told[room]["seq"]), (1, 0))
            self.assertRegex(told[room]["epoch"], EPOCH)
            self.assertEqual((await anna.join(room))["epoch"], told[room]["epoch"])
        await anna.quiet()

    async def test_the_others_are_told_and_messages_flow(self):
        anna = await self.client("flow-anna")
        await anna.join("flow")
        await anna.publish("flow", "before")
        await anna.read_room("flow", 1, 1)
        bert = await self.client_in("flow-bert", "flow")
        self.assertEqual(await anna.notify("room.joined"),
                         {"room": "flow", "user": "flow-bert", "members": 2})
        told = await bert.notify("room.subscribed")
        self.assertEqual((told["members"], told["seq"]), (2, 1))
        await bert.publish("flow", "hello")
        for client in (anna, bert):
            await client.read_room("flow", 2, 2)

    async def test_a_join_by_request_is_not_told_so(self):
        anna = await self.client("only-anna")
        await anna.join("only")
        await anna.publish("only", "marker")
        await anna.read_room("only", 1, 1)

    async def test_the_list_is_split_before_it_is_percent_decoded(self):
        anna = await self.client_in("split-anna", *(place(name) for name in NAMES), "x%2Cy", "b+c")
        told = await self.subscribed(anna, len(NAMES) + 2)
        self.assertEqual(set(told), {*NAMES, "x,y", "b+c"})
        for name in told:
            self.assertEqual((await anna.join(name))["members"], 1)

    async def test_rooms_at_connect_with_since(self):
        anna = await self.client("since-anna")
        epochs = {room: (await anna.join(room))["epoch"] for room in ("si-1", "si-2", "si-3")}
        for room in epochs:
            await anna.publish_row(room, [1, 2, 3])
        bert = await self.client_in("since-bert", place("si-1", 1),
                                    place("si-2", 2, epochs["si-2"]), "si-3", place("si-4", 0))
        told, rows = {}, {room: [] for room in epochs}
        while len(told) < 4 or sum(map(len, rows.values())) < 3:
            got = await bert.receive()
            if got["event"] == "room.subscribed":
                told[got["data"]["room"]] = got["data"]
            else:
                self.assertEqual(got["event"], "room.message")
                self.assertIn(got["data"]["room"], told)  # it precedes the room's messages
                rows[got["data"]["room"]].append(got["data"]["seq"])
        self.assertEqual(rows, {"si-1": [2, 3], "si-2": [3], "si-3": []})
        for room in ("si-1", "si-2", "si-4"):
            self.assertEqual((told[room]["recovered"], told[room]["missed"]), (True, 0), room)
        self.assertFalse({"recovered", "missed"} & set(told["si-3"]))
        await bert.quiet()

    async def test_a_room_that_cannot_be_joined_is_told_and_the_others_are_joined(self):
        anna = await self.client("cannot-anna")
        await anna.ask("room.create", {"room": "cannot", "max_members": 1})
        await anna.join("cannot")
        bert = await self.client_in("cannot-bert", "can-1", "cannot", "can-2")
        told = await self.subscribed(bert, 3)
        refused = told.pop("cannot")
        self.assertEqual((refused["code"], refused["error"]), (409, "room_full"))
        self.assertFalse({"members", "seq", "epoch", "recovered", "missed"} & set(refused))
        self.assertEqual({data["members"] for data in told.values()}, {1})
        answer = await bert.request("room.publish", {"room": "cannot", "content": 1})
        self.assert_error(answer, 403, "forbidden")

    async def test_malformed_ones_are_400_before_the_upgrade(self):
        cases = {"an empty name": "a,,b", "an empty name at the end": "a,",
                 "since is no number": "a@x", "since is negative": "a@-1",
                 "a control character": "a%01", "no UTF-8": "a%ff", "129 bytes": "x" * 129,
                 "broken percent-encoding": "a%zz", "half of one": "a%2",
                 "since is no number in the second": "a,b@1x"}
        for name, rooms in cases.items():
            with self.subTest(name), raw.Wire(self.hub) as wire:
                wire.send(raw.upgrade(f"/ws?user_id=malformed&rooms={rooms}"))
                answer = wire.response()
                self.assertEqual(answer.status, 400)
                error = json.loads(answer.body)["error"]
                self.assertEqual(error["code"], "bad_request")
                self.assertTrue(error["message"])
        anna = await self.client("malformed-anna")
        self.assert_error(await anna.request("room.members", {"room": "a"}), 404, "not_found")


class Bounds(ClientCase):
    options = {"rooms.per_user": 3, "rooms.max_members": 2}

    async def test_rooms_of_one_user(self):
        anna, device, bert = await self.clients(["per-anna", "per-anna", "per-bert"])
        for room in ("per-1", "per-2", "per-3"):
            await anna.join(room)
        for client in (anna, device):  # the user's, whichever session asks
            answer = await client.request("room.join", {"room": "per-4"})
            self.assert_error(answer, 409, "conflict")
        answer = await bert.request("room.members", {"room": "per-4"})
        self.assert_error(answer, 404, "not_found")
        await anna.join("per-3")
        await device.join("per-2")
        self.assertEqual((await bert.join("per-1"))["members"], 2)
        await anna.leave("per-3")
        await device.join("per-4")
        answer = await anna.request("room.join", {"room": "per-3"})
        self.assert_error(answer, 409, "conflict")

    async def test_a_deleted_room_does_not_count(self):
        anna = await self.client("notcount-anna")
        await anna.ask("room.create", {"room": "notcount-1"})
        for number in (1, 2, 3):
            await anna.join(f"notcount-{number}")
        answer = await anna.request("room.join", {"room": "notcount-4"})
        self.assert_error(answer, 409, "conflict")
        await anna.ask("room.delete", {"room": "notcount-1"})
        await anna.notify("room.deleted")
        await anna.join("notcount-4")

    async def test_rooms_at_connect_count_too(self):
        anna = await self.client_in("perat-anna", *(f"perat-{number}" for number in range(5)))
        told = [await anna.notify("room.subscribed") for _ in range(5)]
        self.assertEqual(len({data["room"] for data in told}), 5)
        refused = [data for data in told if "code" in data]
        self.assertEqual([(data["code"], data["error"]) for data in refused],
                         [(409, "conflict")] * 2)
        self.assertEqual([data["members"] for data in told if data not in refused], [1, 1, 1])

    async def test_a_refused_user_is_no_member_of_the_room_that_was_full(self):
        """A refused join costs nothing of the user's own bound."""
        anna, bert, carl = await self.clients(["cost-anna", "cost-bert", "cost-carl"])
        await self.join_all("cost", [anna, bert])
        for _ in range(5):
            self.assert_error(await carl.request("room.join", {"room": "cost"}), 409, "room_full")
        for room in ("cost-1", "cost-2", "cost-3"):
            await carl.join(room)

    async def test_max_members_is_the_default_for_every_room(self):
        anna, bert, carl = await self.clients(["max-anna", "max-bert", "max-carl"])
        for room, data in (("max-auto", None), ("max-made", {}), ("max-zero", {"max_members": 0})):
            if data is not None:
                await anna.ask("room.create", {"room": room, **data})
            await self.join_all(room, [anna, bert])
            self.assert_error(await carl.request("room.join", {"room": room}), 409, "room_full")
            for client in (bert, anna):
                await client.leave(room)
            await anna.notify("room.left")
        await anna.ask("room.create", {"room": "max-own", "max_members": 3})
        await self.join_all("max-own", [anna, bert, carl])


class NotifyMax(ClientCase):
    options = {"rooms.notify_max": 2}

    async def test_larger_rooms_are_told_nothing(self):
        """Counted after a join, before a leave."""
        anna, bert, carl = await self.clients(["few-anna", "few-bert", "few-carl"])
        await anna.join("few")
        self.assertEqual((await bert.join("few"))["members"], 2)
        self.assertEqual((await anna.notify("room.joined"))["user"], "few-bert")
        self.assertEqual((await carl.join("few"))["members"], 3)
        self.assertEqual((await carl.leave("few"))["members"], 2)
        await bert.publish("few", "nobody was told of carl")
        for client in (anna, bert):
            await client.read_room("few", 1, 1)
        await bert.leave("few")
        self.assertEqual(await anna.notify("room.left"),
                         {"room": "few", "user": "few-bert", "members": 1})


class NoAutoCreate(ClientCase):
    options = {"rooms.auto_create": "false"}

    async def test_an_unknown_room_is_404_until_it_is_created(self):
        anna, bert = await self.clients(["manual-anna", "manual-bert"])
        for _ in range(2):
            answer = await bert.request("room.join", {"room": "manual"})
            self.assert_error(answer, 404, "not_found")
        answer = await bert.request("room.join", {"room": "manual", "since": 0, "epoch": "x"})
        self.assert_error(answer, 404, "not_found")
        carl = await self.client_in("manual-carl", "manual")
        refused = await carl.notify("room.subscribed")
        self.assertEqual((refused["room"], refused["code"], refused["error"]),
                         ("manual", 404, "not_found"))
        await anna.ask("room.create", {"room": "manual"})
        self.assertEqual((await bert.join("manual"))["members"], 1)
        dora = await self.client_in("manual-dora", "manual")
        self.assertEqual((await dora.notify("room.subscribed"))["members"], 2)


class Rate(ClientCase):
    options = {"rooms.broadcasts_per_minute": 20}

    async def test_publishes_are_counted_per_room(self):
        """Per room, not per publisher; what is refused takes no seq, and the others none of it."""
        clients = await self.in_room("rate", ["rate-anna", "rate-bert"])
        for client in clients:
            await client.join("rate-other")
        began = time.monotonic()
        answers = [await client.request("room.publish", {"room": "rate", "content": number})
                   for number in range(30) for client in clients]
        took = time.monotonic() - began
        accepted = [answer for answer in answers if answer["type"] == "response"]
        self.assertEqual([answer["type"] for answer in answers[:20]], ["response"] * 20)
        self.assertLessEqual(len(accepted), 20 + took / 60 * 20 + 1)
        for answer in answers:
            if answer not in accepted:
                self.assert_error(answer, 429, "rate_limited")
        self.assertEqual([answer["data"]["seq"] for answer in accepted],
                         list(range(1, len(accepted) + 1)))
        history = await clients[0].history("rate")
        self.assertEqual(history["seq"], len(accepted))
        self.assertEqual((await clients[0].publish("rate-other", 1))["seq"], 1)

    async def test_refused_publishes_of_strangers_cost_nothing(self):
        anna, bert = await self.clients(["cheap-anna", "cheap-bert"])
        await anna.join("cheap")
        for _ in range(40):
            answer = await bert.request("room.publish", {"room": "cheap", "content": 1})
            self.assert_error(answer, 403, "forbidden")
        for seq in range(1, 21):
            self.assertEqual((await anna.publish("cheap", 1))["seq"], seq)


class Priority(ClientCase):
    """A room's message may overtake what is queued, but never another of the same room.

    As in test_priority.py: one device of the user does not read until a send to it is blocked, the
    other one tells when everything stands in both queues."""

    options = {"limits.send_queue_messages": 20_000, "limits.send_queue_bytes": "64MiB",
               "limits.send_timeout": "120s"}

    async def block(self, name, *rooms):
        """The user `name` in these rooms, with a blocked wire behind many big messages."""
        self.wire = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(self.wire.sock.close)
        self.wire.upgrade(path_with_rooms(name, *rooms, device="stops"))
        for event in ["welcome"] + ["room.subscribed"] * len(rooms):
            self.assertEqual(envelope(self.wire.message().payload.decode())["event"], event)
        self.device = await self.client_in(name, *rooms, device="reads")
        for _ in rooms:
            await self.device.notify("room.subscribed")
        self.admin = await self.client(f"{name}-admin", role="admin")
        self.bigs = KERNEL_TAKES // len(BIG) + 6
        for number in range(self.bigs):
            await self.admin.send_message(name, ["big", number, BIG])
            await self.device.message()

    async def publish(self, room, priorities):
        for priority in priorities:
            await self.admin.publish(room, 1, priority=priority)
            self.assertEqual((await self.device.notify("room.message"))["priority"], priority)

    def read(self, count):
        """Reads on: (room, seq) of `count` room messages, "big" where a big one came."""
        order = []
        while len(order) < count + self.bigs:
            got = envelope(self.wire.message().payload.decode())
            data = got["data"]
            order.append("big" if got["event"] == "message" else (data["room"], data["seq"]))
        return order

    async def test_one_room_keeps_its_order_whatever_the_priorities(self):
        await self.block("keeps", "keep")
        priorities = ["normal", "critical", "low", "high", "urgent", "normal", "low", "high"] * 12
        await self.publish("keep", priorities)
        order = [got for got in self.read(len(priorities)) if got != "big"]
        self.assertEqual(order, [("keep", seq) for seq in range(1, len(priorities) + 1)])

    async def test_also_when_it_begins_with_high_ones(self):
        await self.block("begins", "begin")
        priorities = ["high"] * 70 + ["normal", "high", "low", "critical"] * 10
        await self.publish("begin", priorities)
        order = [got for got in self.read(len(priorities)) if got != "big"]
        self.assertEqual(order, [("begin", seq) for seq in range(1, len(priorities) + 1)])

    async def test_high_ones_overtake_direct_messages(self):
        await self.block("overtakes", "overtake")
        await self.publish("overtake", HIGH * 5)
        order = self.read(15)
        self.assertEqual([got for got in order if got != "big"],
                         [("overtake", seq) for seq in range(1, 16)])
        self.assertLess(order.index(("overtake", 15)), len(order) - 1, "nothing was overtaken")

    async def test_high_ones_overtake_those_of_other_rooms(self):
        await self.block("others", "ov-low", "ov-high")
        await self.publish("ov-low", ["normal"] * 10)
        await self.publish("ov-high", ["urgent"] * 10)
        order = [got for got in self.read(20) if got != "big"]
        self.assertEqual(order, [("ov-high", seq) for seq in range(1, 11)]
                         + [("ov-low", seq) for seq in range(1, 11)])

    async def test_normal_ones_do_not_overtake(self):
        await self.block("waits", "wait")
        await self.publish("wait", ["normal", "low"] * 5)
        self.assertEqual(self.read(10), ["big"] * self.bigs
                         + [("wait", seq) for seq in range(1, 11)])


class Refused(ClientCase):

    async def test_unknown_events_about_rooms_are_404(self):
        anna = await self.client("event-anna")
        for event in ("room", "room.", "room.exist", "room.joined", "room.message", "Room.join"):
            answer = await anna.request(event, {"room": "event"})
            self.assert_error(answer, 404, "unknown_event")

    async def test_refusals_do_not_count_as_invalid(self):
        anna = await self.client("refusals-anna")
        for _ in range(30):
            answer = await anna.request("room.leave", {"room": "refusals"})
            self.assert_error(answer, 404, "not_found")
        await anna.quiet()


if __name__ == "__main__":
    unittest.main()
