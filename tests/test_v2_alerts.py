"""What is watched: a feed that falls silent, refusals, queues, changed routes. The watcher's clock is the test's."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridges.v2 import routes
from bridges.v2.watch import Watcher
from fhir_server import outbox
from fhir_server.clock import naive
from tests.department import Department, Resource, unused
from tests.v2_door import partner, registered

NOW = datetime(2026, 9, 9, 10, 0, tzinfo=UTC)  # a Wednesday
MINUTE, HOUR, DAY, WEEK = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)


class Watched:
    """A department that is watched, at a moment that the test sets, and what its store holds of earlier times."""

    def __init__(self, ris: Department) -> None:
        self.ris = ris
        self.now = NOW
        self.watcher = Watcher(ris.interactions, ris.inbound, now=lambda: self.now)

    async def came(self, endpoint: Resource | None, *moments: datetime, outcome: str = "AA") -> None:
        """Messages that were received then."""
        reference = f"Endpoint/{endpoint['id']}" if endpoint else ""
        await self.ris.db["messages"].insert_many(
            {
                "sender": "HIS|HOSP", "control_id": unused("C"), "digest": "", "partner": reference, "type": "ADT^A04",
                "received": naive(moment), "outcome": outcome, "final": True, "about": [], "errors": [],
            }
            for moment in moments
        )  # fmt: skip

    async def every(self, endpoint: Resource, step: timedelta, since: datetime, until: datetime) -> None:
        await self.came(endpoint, *(since + n * step for n in range(int((until - since) / step))))

    async def waits(self, destination: Resource, *moments: datetime) -> None:
        """Messages that wait since then."""
        to = f"Endpoint/{destination['id']}"
        for moment in moments:
            document = outbox.document(outbox.Outbound(to, "ORU^R01", unused("C"), b"MSH|"))
            await self.ris.db["outbox"].insert_one(document | {"created": naive(moment)})

    async def alerts(self, after: timedelta = timedelta()) -> dict[str, str]:
        """The open alerts after a look, so much later: subject -> text."""
        self.now += after
        await self.watcher.look()
        items = await self.ris.work_items("interface-alert", status="requested")
        return {i["identifier"][0]["value"].removeprefix("interface-alert "): i["description"] for i in items}


def silent(endpoint: Resource) -> str:
    return f"silent Endpoint/{endpoint['id']}"


def test_a_feed_that_has_never_come_is_missed_once_it_should_have(ris):
    async def scenario():
        watched = Watched(ris)
        async with (
            registered(ris, "accept-application: MUTE", "expect-every: 30m") as mute,
            registered(ris, "accept-application: NEW") as new,
        ):
            watched.now = datetime.fromisoformat(mute["meta"]["lastUpdated"]) + 29 * MINUTE
            assert silent(mute) not in await watched.alerts()
            alerts = await watched.alerts(2 * MINUTE)
            assert "nothing has ever come" in alerts[silent(mute)]
            assert silent(new) not in alerts

    ris.run(scenario())


def test_a_feed_that_should_come_every_half_hour_and_doesn_t_raises_one_alert_that_ends_when_it_comes(ris):
    async def scenario():
        watched = Watched(ris)
        async with registered(ris, "accept-application: HIS", "expect-every: 30m") as his:
            await watched.came(his, NOW - 29 * MINUTE)
            assert silent(his) not in await watched.alerts()
            alerts = await watched.alerts(2 * MINUTE)
            assert alerts[silent(his)] == f"Endpoint/{his['id']} (HIS) has sent nothing since 2026-09-09 09:31 UTC"
            assert silent(his) in await watched.alerts(HOUR)
            (item,) = [i for i in await ris.work_items("interface-alert") if his["id"] in i["description"]]
            await watched.came(his, watched.now)
            assert silent(his) not in await watched.alerts(MINUTE)
            assert (await ris.read(item))["statusReason"]["text"] == "over"
            # And again: another one.
            assert silent(his) in await watched.alerts(HOUR)

    ris.run(scenario())


def test_whoever_closes_an_alert_hears_no_more_of_it_until_it_was_over(ris):
    async def scenario():
        watched = Watched(ris)
        async with registered(ris, "accept-application: HIS", "expect-every: 30m") as his:
            await watched.came(his, NOW - HOUR)
            assert silent(his) in await watched.alerts()
            (item,) = [i for i in await ris.work_items("interface-alert", status="requested") if his["id"] in i["description"]]
            await ris.become(item, "completed")
            assert silent(his) not in await watched.alerts(HOUR)
            await watched.came(his, watched.now)
            assert silent(his) not in await watched.alerts(MINUTE)
            assert silent(his) in await watched.alerts(HOUR)

    ris.run(scenario())


@pytest.mark.parametrize(
    ("until", "odd"),
    [
        (NOW - 10 * MINUTE, False),  # too short to say
        (NOW - 40 * MINUTE, True),
        (NOW - 3 * HOUR, True),
        (NOW - 2 * DAY, True),
    ],
)
def test_a_feed_that_is_always_busy_is_missed_at_the_hour_at_which_it_usually_sends(ris, until, odd):
    async def scenario():
        watched = Watched(ris)
        async with registered(ris, "accept-application: HIS") as his:
            await watched.every(his, 3 * MINUTE, NOW - 3 * WEEK, until)
            assert (silent(his) in await watched.alerts()) is odd

    ris.run(scenario())


def test_a_feed_that_sleeps_at_night_and_on_sundays_is_not_missed_then(ris):
    async def scenario():
        watched = Watched(ris)
        saturday = NOW + 3 * DAY
        async with registered(ris, "accept-application: HIS") as his:
            for day in range(22):
                morning = (saturday - day * DAY).replace(hour=7)
                if morning.weekday() != 6:
                    await watched.every(his, 3 * MINUTE, morning, morning + 10 * HOUR)
            watched.now = saturday.replace(hour=16, minute=59)
            assert silent(his) not in await watched.alerts()
            assert silent(his) not in await watched.alerts(6 * HOUR)  # Saturday night
            assert silent(his) not in await watched.alerts(15 * HOUR)  # Sunday
            assert silent(his) in await watched.alerts(20 * HOUR)  # Monday, 10 o'clock

    ris.run(scenario())


def test_refusals_are_told_when_there_are_many_more_than_usual(ris):
    async def scenario():
        watched = Watched(ris)
        watched.now = now = NOW - 500 * DAY  # away from what other tests have stored
        async with registered(ris, "accept-application: HIS") as his, registered(ris, "accept-application: EHR") as usual:
            subject, other = f"refusals Endpoint/{his['id']}", f"refusals Endpoint/{usual['id']}"
            await watched.came(his, *[now - HOUR] * 95)
            await watched.came(his, *[now - HOUR] * 5, outcome="AE")
            await watched.came(usual, *[now - HOUR] * 50)
            await watched.came(usual, *[now - HOUR] * 50, outcome="AE")
            for who in (his, usual):
                await watched.came(who, *[now - 5 * MINUTE] * 20)
                await watched.came(who, *[now - 5 * MINUTE] * 9, outcome="AR")
            assert not {subject, other} & (await watched.alerts()).keys()
            for who in (his, usual):
                await watched.came(who, now - MINUTE, outcome="AE")
            alerts = await watched.alerts()
            assert alerts[subject] == f"10 of 30 messages of Endpoint/{his['id']} were refused, 5% is usual"
            assert other not in alerts
            assert subject not in await watched.alerts(HOUR)

    ris.run(scenario())


def test_a_queue_is_told_when_its_oldest_message_is_old_or_it_is_long(ris):
    async def scenario():
        watched = Watched(ris)
        slow, patient, long = await ris.destination(), await ris.destination(alert_after="2h"), await ris.destination()
        await watched.waits(slow, NOW - 9 * MINUTE)
        await watched.waits(patient, NOW - 9 * MINUTE)
        await watched.waits(long, *[NOW] * 1000)
        subjects = [f"queue Endpoint/{d['id']}" for d in (slow, patient, long)]
        assert not set(subjects) & (await watched.alerts()).keys()
        await watched.waits(long, NOW)
        alerts = await watched.alerts(2 * MINUTE)
        assert alerts[subjects[0]] == f"1 messages wait for Endpoint/{slow['id']}, the oldest for 11 minutes"
        assert alerts[subjects[2]].startswith("1001 messages wait")
        assert subjects[1] not in alerts
        await ris.db["outbox"].update_many({"destination": f"Endpoint/{slow['id']}"}, {"$set": {"state": "delivered"}})
        assert subjects[0] not in await watched.alerts()
        assert subjects[1] in await watched.alerts(2 * HOUR)
        await ris.db["outbox"].delete_many({})

    ris.run(scenario())


def test_who_changes_a_route_is_named_and_the_rest_of_an_endpoint_is_nobody_s_business(ris):
    async def scenario():
        routes.register(ris.registry)
        try:
            made = await ris.create(partner("accept-application: HIS"))
            subject = f"route Endpoint/{made['id']}"

            async def told() -> list[Any]:
                items = await ris.work_items("interface-alert", status="requested")
                return [i["description"] for i in items if i["identifier"][0]["value"].endswith(subject)]

            assert await told() == []
            await ris.update(made, name="the hospital's")
            assert await told() == []
            changed = await ris.update(made, address="mllp://127.0.0.1:10")
            assert await told() == [
                f"The route Endpoint/{made['id']} was changed (address) by test; it led to mllp://127.0.0.1:9"
            ]
            await ris.become(changed, "off")
            assert await told() == [f"The route Endpoint/{made['id']} was changed (status) by test"]
            await Watched(ris).watcher.look()
            assert len(await told()) == 1  # it is for a person to end
            await ris.delete(made)
            assert await told() == [f"The route Endpoint/{made['id']} was deleted by test; it led to mllp://127.0.0.1:10"]
        finally:
            ris.registry.reactions["Endpoint"].remove(routes.follow)

    ris.run(scenario())


def test_of_several_processes_one_watches(ris, monkeypatch):
    async def scenario():
        looks: list[Watcher] = []

        async def look(self: Watcher) -> None:
            looks.append(self)

        monkeypatch.setattr("bridges.v2.watch._EVERY", 0.02)
        monkeypatch.setattr(Watcher, "look", look)
        watchers = [Watched(ris).watcher for _ in range(3)]
        async with watchers[0].running(), watchers[1].running(), watchers[2].running():
            async with asyncio.timeout(10):
                while len(looks) < 5:
                    await asyncio.sleep(0.01)
        assert len({id(w) for w in looks}) == 1

    ris.run(scenario())
