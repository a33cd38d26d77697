#!/usr/bin/env python3
"""Histories whose figures were worked out by hand: `python test_oracle.py`."""

import copy
import gzip
import io
import json
import tempfile
from collections import Counter
from pathlib import Path
from zoneinfo import ZoneInfo

from cdnow import convert
from compare import compare
from oracle import DAY_MS, HOUR_MS, civil_day, evaluate, first_instant, parse_amount, parse_time, read_config

JANUARY_1 = parse_time("2024-01-01T00:00:00Z")
NOON = DAY_MS // 2


def at(day: int, offset: int = NOON) -> int:
    return JANUARY_1 + day * DAY_MS + offset


def run(events: list[dict], config: dict, as_of: str | int, parts=("windows",)) -> dict:
    [result] = run_at(events, config, [as_of], parts)
    return result


def run_at(events: list[dict], config: dict, as_ofs: list[str | int], parts) -> list[dict]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "events.ndjson.gz")
        with gzip.open(path, "wt") as file:
            file.writelines(json.dumps(event) + "\n" for event in events)
        results, rejected = evaluate([path], config, [parse_time(as_of) for as_of in as_ofs], parts)
    assert not rejected, rejected
    return results


def expect(found: dict, **expected):
    for name, value in expected.items():
        assert found[name] == value, f"{name}: {found[name]!r}, expected {value!r}"


def order(customer, time, order_id=None, amount="10.00", currency="EUR", **attributes) -> dict:
    return {"type": "order", "order_id": order_id, "customer_id": customer, "time": time,
            "amount": amount, "currency": currency, "attributes": attributes}


def test_orders_of_a_day_are_one():
    """In New York the day ends at 05:00 UTC: of four orders three are one, in two currencies."""
    events = [
        order("a", "2024-01-10T23:00:00Z", "1", "5.00", channel="web"),
        order("a", "2024-01-11T04:59:00Z", "2", "7.00", "USD", channel="app"),
        order("a", "2024-01-10T08:00:00Z", "3", "1.00", channel="app"),
        order("a", "2024-01-11T05:00:00Z", "4", "9.00"),
        {"type": "refund", "refund_id": "r", "customer_id": "a", "time": "2024-01-11T06:00:00Z",
         "amount": "2.00", "currency": "EUR"},
    ]
    config = {"zone": "America/New_York", "windows": [{"name": "10d", "period_ms": 10 * DAY_MS}], "clv_window": "10d",
              "calendar": [{"name": "month"}]}
    parts = ("windows", "calendar", "segments", "cohorts", "distributions", "stages")
    as_of = "2024-01-14T00:00:00Z"
    apart = run(events, config, as_of, parts)
    merged = run(events, {**config, "merge_orders": True}, as_of, parts)
    for result, orders, eur in ((apart, 4, 3), (merged, 2, 2)):
        [window], [month] = result["windows"], result["calendar"]
        for figures in (window, month):
            expect(figures, orders=orders, ordering_customers=1, repeat_customers=1)
            expect(figures["currencies"]["EUR"], orders=eur, revenue="15.00", refunds="2.00")
            expect(figures["currencies"]["USD"], orders=1, revenue="7.00")
        [cell] = result["cohorts"]
        expect(cell, orders=orders, ordering_customers=1)
        expect(cell["currencies"]["EUR"], revenue="15.00")
        values = {d["currency"]: d for d in result["distributions"] if d["name"] == "order_value"}
        expect(values["EUR"], count=eur, sum="15.00")
        assert {segment["value"] for segment in result["segments"]} == {"app"}
    gaps = {d["name"]: d for d in merged["distributions"]}["interpurchase_seconds"]
    expect(gaps, count=1, sum=21 * 3600.0)
    alone = run(events[:3], {**config, "merge_orders": True}, as_of, parts)
    expect(alone["windows"][0], orders=1, repeat_customers=0, returning_customers=0)
    assert alone["stages"] == [{"stage": "new", "status": "active", "customers": 1}], alone["stages"]
    before = run(events, {**config, "merge_orders": True}, "2024-01-10T22:00:00Z", parts)
    expect(before["windows"][0], orders=1)
    expect(before["windows"][0]["currencies"]["EUR"], orders=1, revenue="1.00")


def test_rolling_window():
    """P = 10 days, A = 20 days, p = day 40: start (10, 30], end (20, 40], within (30, 40]."""
    events = [
        order("both", at(15)),
        order("both", at(35), "both-2", "50.00"),
        order("lost", at(12)),
        order("back", at(5)),
        order("back", at(36), "back-2"),
        order("back", at(37), "back-2", "99.00"),  # a duplicate, whatever it carries
        order("fresh", at(33), amount=30),
        order("fresh", at(38), amount=300, currency="JPY"),
        order("last pane", at(40, DAY_MS - 1), amount=5.5),  # later than T, but in its pane
        order("last pane", at(41, 0)),  # the next pane does not count
        order("lost at the edge", at(20)),
        order("gone before", at(10, DAY_MS - 1)),
        order("kept", at(30, DAY_MS - 1)),
        order("kept without order id", at(29)),
        order("kept without order id", at(29)),  # no id: not a duplicate
        order("free", at(31, 0), amount="0"),
        {"type": "refund", "refund_id": "r", "order_id": "x", "customer_id": "lost",
         "time": at(37), "amount": "20.00", "currency": "EUR"},
        *[{"type": "cancel", "order_id": "both-2", "customer_id": "both",
           "time": at(39), "amount": "50.00", "currency": "EUR"}] * 2,
        {"type": "session", "session_id": "1", "customer_id": "both", "time": at(32)},
        {"type": "session", "session_id": "2", "customer_id": "both", "time": at(32)},
        {"type": "session", "session_id": "1", "customer_id": "prospect", "time": at(34)},
        {"type": "session", "session_id": "2", "customer_id": "prospect", "time": at(30)},
    ]
    config = {
        "windows": [{"name": "10d", "period_ms": 10 * DAY_MS, "active_for_ms": 20 * DAY_MS,
                     "resolution_ms": DAY_MS}],
        "clv_window": "10d",
    }
    [window] = run(events, config, at(40))["windows"]
    expect(
        window,
        period_seconds=864_000,
        active_for_seconds=1_728_000,
        start_customers=5,  # both, lost, lost at the edge, kept, kept without order id
        end_customers=7,  # both, back, fresh, last pane, kept, kept without order id, free
        new_customers=3,  # fresh, last pane, free
        lost_customers=2,
        retained_customers=3,  # both, kept, kept without order id
        reactivated_customers=1,  # back
        ordering_customers=5,  # both, back, fresh, last pane, free
        repeat_customers=1,  # fresh
        returning_customers=3,  # both, back, fresh
        visiting_customers=2,
        orders=6,
        sessions=3,
        churn_ratio=2 / 5,
        retention_ratio=3 / 5,
        crr_ratio=4 / 5,
        repeat_ratio=1 / 5,
        returning_ratio=3 / 5,
        purchase_frequency=6 / 5,
        conversion_ratio=5 / 2,
        complete=True,  # the first event is on day 5, pane p - P - A + 1 is day 11
        new_complete=False,
        # both 20 days, back 31, fresh 5, kept without order id 0
        lifespan_seconds=14 * 86_400.0,
    )
    # EUR: 50 + 10 + 30 + 5.50 + 0 = 95.50 of 5 orders; net 25.50; per ordering customer 5.10
    expect(
        window["currencies"]["EUR"],
        orders=5,
        revenue="95.50",
        refunds="20.00",
        cancellations="50.00",
        average_order_value="19.100000000000",
        net_average_order_value="5.100000000000",
        clv="7.140000000000",  # 5.10 x 14 / 10
    )
    expect(window["currencies"]["JPY"], orders=1, revenue="300", clv="84.000000000000")

    # Data that begin within the first A days say nothing about churn, nor about value.
    late = {**config, "data_begin": at(11, 1), "history_whole": True}
    [window] = run(events, late, at(40))["windows"]
    expect(window, complete=False, new_complete=False, churn_ratio=2 / 5)
    assert window["currencies"]["EUR"]["clv"] is None
    exact = {**config, "data_begin": at(11, 0), "history_whole": True}
    [window] = run(events, exact, at(40))["windows"]
    expect(window, complete=True, new_complete=True)


def test_calendar():
    """Oslo is an hour ahead of UTC in winter: the first order is of 1 February there."""
    events = [
        order("stays", "2023-01-31T23:30:00Z"),
        order("stays", "2023-04-30T12:00:00Z"),
        order("leaves", "2023-02-01T12:00:00+01:00"),
    ]
    config = {"zone": "Europe/Oslo", "data_begin": 0}
    result = run(events, config, "2023-05-02T12:00:00Z", ("calendar",))["calendar"]
    months = [period for period in result if period["window"] == "month"]
    assert [month["from"] for month in months] == [
        "2023-02-01", "2023-03-01", "2023-04-01", "2023-05-01",
    ]
    assert [month["to"] for month in months] == [
        "2023-02-28", "2023-03-31", "2023-04-30", "2023-05-31",
    ]
    assert [month["closed"] for month in months] == [True, True, True, False]
    february, march, april, may = months
    expect(february, start_customers=0, end_customers=2, new_customers=2, churn_ratio=None,
           ordering_customers=2, orders=2, active_for_seconds=90 * 86_400, lifespan_seconds=None)
    expect(march, start_customers=2, end_customers=2, lost_customers=0, churn_ratio=0.0,
           ordering_customers=0, orders=0, purchase_frequency=None, currencies={})
    expect(april, start_customers=2, end_customers=2, ordering_customers=1, returning_customers=1)
    # (1 February, 2 May] are 90 days: the order of 1 February is just outside.
    expect(may, start_customers=2, end_customers=1, lost_customers=1, churn_ratio=0.5, complete=True)
    quarters = [period["from"] for period in result if period["window"] == "quarter"]
    years = [period["from"] for period in result if period["window"] == "year"]
    assert quarters == ["2023-01-01", "2023-04-01"] and years == ["2023-01-01"]

    # Data begin on 1 February. May needs them from 30 April - 90 days + 1 = 31 January on,
    # June from 31 May - 90 days + 1 = 3 March on.
    late = run(events, {"zone": "Europe/Oslo"}, "2023-07-01T12:00:00Z", ("calendar",))["calendar"]
    complete = {p["from"]: p["complete"] for p in late if p["window"] == "month"}
    assert complete["2023-06-01"] and not complete["2023-05-01"]

    apia = ZoneInfo("Pacific/Apia")  # went from 29 to 31 December 2011
    skipped = civil_day(parse_time("2011-12-29T12:00:00-10:00"), apia) + 1
    assert civil_day(parse_time("2011-12-31T00:00:00+14:00"), apia) == skipped + 1
    assert first_instant(skipped, apia) == parse_time("2011-12-31T00:00:00+14:00")
    assert first_instant(skipped + 1, apia) == parse_time("2011-12-31T00:00:00+14:00")
    toronto = ZoneInfo("America/Toronto")  # 1919-03-30 23:30 -> 1919-03-31 00:30
    day = civil_day(parse_time("1919-03-31T12:00:00Z"), toronto)
    assert first_instant(day, toronto) == parse_time("1919-03-31T04:30:00Z")


def test_an_erasure_divides_events_by_time_wherever_they_are():
    """Before it, at it, and after it; a copy across it stays a copy; two at one time are one."""
    erase = {"type": "erase", "customer_id": "x", "time": "2024-01-10T00:00:00Z"}
    events = [
        {"type": "session", "session_id": "1", "customer_id": "x", "time": "2024-01-05T00:00:00Z"},
        order("x", "2024-01-08T00:00:00Z", "1"),
        erase,
        order("x", "2024-01-12T00:00:00Z", "1"),  # a copy
        order("x", "2024-01-12T00:00:00Z", "2"),
        order("x", "2024-01-10T00:00:00Z", "3"),  # at that very time: of the erased one
        order("y", "2024-01-12T00:00:00Z", "4"),
        {"type": "erase", "customer_id": "y"},  # then, for nothing newer came before it
        order("y", "2024-01-12T00:00:00Z", "5"),
        order("y", "2024-01-12T00:00:01Z", "6"),
    ]
    for order_of_lines in (lambda lines: lines, lambda lines: [lines[2], *lines[:2], *lines[3:]], lambda lines: [*lines, erase]):
        windows = run(order_of_lines(events), {"windows": [{"name": "30d", "period_ms": 30 * DAY_MS}]},
                      "2024-01-13T00:00:00Z", ("windows",))["windows"]
        expect(windows[0], new_customers=4, repeat_customers=2, orders=6, sessions=1, visiting_customers=1)


def test_erase_stages_cohorts_segments():
    """x is erased and comes back as somebody else; the old order, sent again, stays a copy."""
    events = [
        order("x", "2024-01-10T00:00:00Z", "1", channel="web"),
        {"type": "erase", "customer_id": "x"},
        order("x", "2024-01-10T00:00:00Z", "1", channel="web"),
        order("x", "2024-03-05T00:00:00Z", "2", channel="ads"),
        order("y", "2024-02-20T00:00:00Z", "2", channel="ads"),
        order("y", "2024-01-20T00:00:00Z", "1"),  # the earliest, though later in the file
        order("y", "2024-03-20T00:00:00Z", "3", channel="web"),
        {"type": "session", "session_id": "1", "customer_id": "z", "time": "2024-03-01T00:00:00Z"},
    ]
    config = {
        "windows": [{"name": "90d", "period_ms": 90 * DAY_MS}],
        "calendar": [{"name": "year"}],
        "loyal_orders": 3,
    }
    parts = ("cohorts", "stages", "segments")
    result = run(events, config, "2024-04-25T00:00:00Z", parts)

    # y: mean gap 30 days, at risk from 60 days on; silent for 36 days.
    # the second x: one order, at risk from 45 days on; silent for 51.
    assert {(s["stage"], s["status"]): s["customers"] for s in result["stages"]} == {
        ("new", "lapsed"): 1,
        ("new", "at_risk"): 1,
        ("loyal", "active"): 1,
        ("prospect", "none"): 1,
    }
    expiry = {  # y is at risk at 19 May 00:00 sharp, lapsed on 18 June, and not loyal any more
        "2024-05-18T23:59:59Z": ("loyal", "active"),
        "2024-05-19T00:00:00Z": ("loyal", "at_risk"),
        "2024-06-17T23:59:59Z": ("loyal", "at_risk"),
        "2024-06-18T00:00:00Z": ("repeat", "lapsed"),
    }
    for time, expected in expiry.items():
        stages = run(events, config, time, ("stages",))["stages"]
        assert expected in {(s["stage"], s["status"]) for s in stages}, time

    cells = {
        (c["cohort"], c["age_months"]): (c["customers"], c["ordering_customers"], c["orders"])
        for c in result["cohorts"]
    }
    assert cells == {
        ("2024-01", 0): (2, 2, 2),
        ("2024-01", 1): (2, 1, 1),
        ("2024-01", 2): (2, 1, 1),
        ("2024-01", 3): (2, 0, 0),
        ("2024-03", 0): (1, 1, 1),
        ("2024-03", 1): (1, 0, 0),
    }
    money = {"revenue": "20.00", "refunds": "0.00", "cancellations": "0.00"}
    assert result["cohorts"][0]["currencies"] == {"EUR": money}

    rolling = {s["value"]: s for s in result["segments"] if s["window"] == "90d"}
    assert set(rolling) == {"web", "ads", "unknown", "none"}
    # the window is (26 January, 25 April]: x first ordered before it, as did y
    expect(rolling["web"], start_customers=1, end_customers=0, lost_customers=1, orders=0)
    expect(rolling["ads"], start_customers=0, end_customers=1, new_customers=1, orders=1)
    expect(rolling["unknown"], retained_customers=1, orders=2, visiting_customers=0)
    expect(rolling["none"], end_customers=0, orders=0, visiting_customers=1, sessions=1)
    years = [s for s in result["segments"] if s["window"] == "year"]
    assert {(s["from"], s["closed"]) for s in years} == {("2024-01-01", False)}
    listed = {**config, "dimensions": {"channel": ["web"]}}
    segments = run(events, listed, "2024-04-25T00:00:00Z", parts)["segments"]
    assert {s["value"] for s in segments} == {"web", "other", "unknown", "none"}


def event(event_type: str, customer: str, time, **more) -> dict:
    return {"type": event_type, "customer_id": customer, "time": time, **more}


TEN_DAYS = {  # P = 10 days, A = 20 days: as of day 40 start is (10, 30], end (20, 40], within (30, 40]
    "windows": [{"name": "10d", "period_ms": 10 * DAY_MS, "active_for_ms": 20 * DAY_MS, "resolution_ms": DAY_MS}],
    "clv_window": "10d",
    "data_begin": 0,
}

TOLD = [
    {**order("told", at(33)), "referred_by": "old"},
    order("told later", at(32), channel="web"),
    {**order("told later", at(35)), "referred_by": "old"},  # only the first order's word counts
    event("customer", "profile", at(20), referred_by="old"),
    order("profile", at(31)),
    order("profile after", at(34)),
    event("customer", "profile after", at(41), referred_by="old"),
    {**order("empty", at(36)), "referred_by": ""},
    event("customer", "empty", at(36), referred_by=None),
    {**order("old", at(5)), "referred_by": "somebody"},
    order("old", at(12)),
    event("feedback", "old", at(39), kind="complaint"),
    order("quiet", at(15)),
    event("feedback", "quiet", at(20), kind="Complaint"),  # another kind
    order("late complaint", at(15)),
    event("feedback", "late complaint", at(41), kind="complaint"),
    order("kept", at(25)),
    event("feedback", "kept", at(26), kind="complaint"),  # not lost
    event("customer", "prospect", at(30), referred_by="old"),  # never orders
]


def test_referrals_and_complainers():
    parts = ("windows", "referrals", "complainers", "feedback")
    day_40, day_41, day_42, after = run_at(TOLD, TEN_DAYS, [at(40), at(41), at(42), at(42, 13 * HOUR_MS)], parts)
    expect(day_40["windows"][0], new_customers=5, referred_customers=2,  # told, profile
           referral_ratio=2 / 5, lost_customers=3, lost_complainers=1, lost_complainer_ratio=1 / 3)
    # Profile's first order leaves the window; "profile after" is known to be referred now.
    expect(day_41["windows"][0], new_customers=4, referred_customers=2, lost_customers=3, lost_complainers=2)
    assert day_40["referrals"] == day_41["referrals"] == 3  # told, profile, old
    assert day_42["referrals"] == 3 and after["referrals"] == 4  # the mention of day 41, 12:00, has settled
    assert day_40["feedback"] == [{"kind": "Complaint", "count": 1}, {"kind": "complaint", "count": 2}]
    assert day_41["feedback"][1] == {"kind": "complaint", "count": 3}

    [empty] = run([order("a", at(5))], TEN_DAYS, at(40), parts)["windows"]
    expect(empty, referred_customers=0, referral_ratio=None, lost_complainers=0, lost_complainer_ratio=None)
    many = [event("feedback", "a", at(1, n), kind=f"k{n:02}") for n in range(52)]
    kinds = run(many + [event("feedback", "a", at(2), kind="k51")], TEN_DAYS, at(3), ("feedback",))["feedback"]
    assert len(kinds) == 51 and kinds[-1] == {"kind": "other", "count": 3}


def test_costs():
    costs = [
        event("cost", "told", at(33), kind="acquisition", amount="4.00", currency="EUR"),
        event("cost", "old", at(20), kind="retention", amount="1.00", currency="EUR"),  # to date, not within
        event("cost", "told", at(40, DAY_MS - 1), kind="retention", amount="2.50", currency="EUR"),
        event("cost", "prospect", at(35), kind="retention", amount=3, currency="USD"),
        event("cost", "kept", at(41, 0), kind="retention", amount="9.00", currency="EUR"),  # the next pane
    ]
    parts = ("windows", "costs", "coverage", "clv_after_costs", "segments", "segment_clv")
    result = run(TOLD + costs, TEN_DAYS, at(40), parts)
    [window] = result["windows"]
    expect(window, customers_to_date=9, costed_customers=2, cost_coverage_ratio=2 / 9, ordering_customers=5,
           lifespan_seconds=5 * 86_400.0)  # told later 3 days, old 7
    expect(
        window["currencies"]["EUR"],
        acquisition_costs="4.00",
        retention_costs="2.50",
        clv="6.000000000000",  # 60 / 5 x 5 / 10
        clv_after_costs="5.166666666667",  # 6 - 7.50 / 9
    )
    expect(window["currencies"]["USD"], orders=0, revenue="0.00", acquisition_costs="0.00", retention_costs="3.00",
           average_order_value=None, clv="0.000000000000", clv_after_costs="-0.333333333333")
    values = {s["value"]: s["currencies"]["EUR"]["clv"] for s in result["segments"] if s["window"] == "10d"
              and s["currencies"]}
    assert values == {"web": "6.000000000000", "unknown": "7.000000000000"}  # 20 x 3 / 10; 10 x 7 / 10
    assert all("USD" not in s["currencies"] for s in result["segments"])  # costs are not split

    [window] = run(TOLD, TEN_DAYS, at(40), parts)["windows"]
    expect(window["currencies"]["EUR"], retention_costs="0.00", clv="6.000000000000", clv_after_costs=None)
    assert set(window["currencies"]) == {"EUR"}
    late = run(TOLD + costs, {**TEN_DAYS, "data_begin": at(20)}, at(40), parts)["windows"][0]
    expect(late["currencies"]["EUR"], clv=None, clv_after_costs=None)


# At risk after 5 days, with 3 orders or more after at most 7.5; lapsed after 10; loyal with 3 orders.
RHYTHM = {"active_for_ms": 10 * DAY_MS, "loyal_orders": 3, "windows": [{"name": "7d", "period_ms": 7 * DAY_MS}]}
RETURNS = [
    event("session", "a", at(0, 0)),
    order("a", at(0)), order("a", at(12)), order("a", at(13), amount="1.00"), order("a", at(24), amount="30.00"),
    order("b", at(0)), order("b", at(0, NOON + HOUR_MS // 2), amount="20.00"),  # two within one hour
]


def test_transitions():
    """a is at risk on day 5, lapses on day 10, comes back on day 12, is loyal on day 13, at risk in the
    middle of day 20, lapses on day 23, comes back on day 24, and so on; b on days 5 and 10."""

    def passages(as_of: int) -> dict:
        [found] = run_at(RETURNS, RHYTHM, [as_of], ("transitions",))
        return {(t["from"], t["to"]): t["count"] for t in found["transitions"]}

    before = passages(at(24, 13 * HOUR_MS - 1))
    assert before == {
        ("none", "active"): 2, ("active", "at_risk"): 3, ("at_risk", "lapsed"): 2, ("lapsed", "active"): 1,
        ("new", "repeat"): 2, ("repeat", "loyal"): 1,
    }
    # An hour later what happened between 12:00 and 13:00 of day 23 has settled.
    assert passages(at(24, 13 * HOUR_MS)) == {**before, ("at_risk", "lapsed"): 3, ("loyal", "repeat"): 1}
    assert passages(at(40)) == {
        ("none", "active"): 2, ("active", "at_risk"): 4, ("at_risk", "lapsed"): 4, ("lapsed", "active"): 2,
        ("new", "repeat"): 2, ("repeat", "loyal"): 2, ("loyal", "repeat"): 2,
    }

    # Who passed in and not out is there: at every sixth hour, with nothing left to settle.
    hours = [at(0, 0) + hour * HOUR_MS for hour in range(0, 40 * 24, 6)]
    for found in run_at(RETURNS, {**RHYTHM, "allowed_lateness_ms": -HOUR_MS}, hours, ("stages", "transitions")):
        balance = Counter({"new": sum(t["count"] for t in found["transitions"] if t["from"] == "none")})
        for passage in found["transitions"]:
            balance[passage["from"]] -= passage["count"]
            balance[passage["to"]] += passage["count"]
        there = Counter()
        for stage in found["stages"]:
            there[stage["stage"]] += stage["customers"]
            there[stage["status"]] += stage["customers"]
        for name in ("new", "repeat", "loyal", "active", "at_risk", "lapsed"):
            assert balance[name] == there[name], (found["as_of"], name, found)


def test_distributions():
    """Gaps of a: 12, 1, 11 days; of b: half an hour."""
    before, after = run_at(RETURNS, RHYTHM, [at(25, 13 * HOUR_MS - 1), at(25, 13 * HOUR_MS)], ("distributions",))
    gaps, second, value = before["distributions"]
    day = 86_400.0
    expect(gaps, name="interpurchase_seconds", count=3, sum=13 * day + 1800,
           quantiles={"0.1": 1800, "0.25": 1800, "0.5": day, "0.75": 12 * day, "0.9": 12 * day, "0.95": 12 * day,
                      "0.99": 12 * day})
    expect(second, name="time_to_second_order_seconds", count=2, sum=12 * day + 1800)
    assert second["quantiles"]["0.5"] == 1800 and second["quantiles"]["0.75"] == 12 * day
    expect(value, name="order_value", currency="EUR", count=6, sum="81.00")  # at once
    assert (value["quantiles"]["0.1"], value["quantiles"]["0.5"], value["quantiles"]["0.99"]) == (1.0, 10.0, 30.0)
    expect(after["distributions"][0], count=4, sum=24 * day + 1800)
    expect(after["distributions"][1], count=2)
    nobody, *rest = run(RETURNS[:2], RHYTHM, at(40), ("distributions",))["distributions"]
    expect(nobody, count=0, sum=0, quantiles={})


def test_reporting_currency():
    """Oslo: 23:30 UTC on 1 January is the second day."""
    rates = [["2024-01-02", "USD", "0.95"], ["2024-01-01", "USD", "0.9"], ["2024-01-01", "JPY", "0.0061"]]
    config = {"zone": "Europe/Oslo", "reporting": "EUR", "rates": rates}
    events = [
        order("a", "2024-01-01T12:00:00Z", amount="10.01", currency="USD", channel="web"),  # 9.009
        order("a", "2024-01-01T23:30:00Z", amount="1.00", currency="USD"),  # 0.95
        order("a", "2024-01-05T12:00:00Z", amount="10.00", currency="USD"),  # 9.50
        order("b", "2024-01-05T12:00:00Z", amount="1.00", currency="EUR"),
        order("b", "2024-01-05T12:00:00Z", amount="101", currency="JPY"),  # 0.6161
        order("b", "2024-01-05T12:00:00Z", amount="1.234", currency="KWD"),  # no rate
        order("b", "2023-12-31T12:00:00Z", amount="5.00", currency="USD"),  # no rate yet
        event("refund", "a", "2024-01-01T12:00:00Z", amount="0.05", currency="USD"),  # 0.045, half away from 0
        event("cost", "a", "2024-01-03T12:00:00Z", kind="retention", amount="2.00", currency="USD"),
    ]
    parts = ("windows", "reporting", "costs", "cohorts", "segments", "distributions")
    result = run(events, config, "2024-01-06T00:00:00Z", parts)
    month = next(window for window in result["windows"] if window["window"] == "30d")
    expect(month, orders=7)
    expect(month["currencies"]["reporting"], orders=5, revenue="21.08", refunds="0.05", cancellations="0.00",
           retention_costs="1.90", average_order_value="4.216000000000")
    expect(month["currencies"]["USD"], orders=4, revenue="26.01", refunds="0.05")
    [web] = [s for s in result["segments"] if (s["window"], s["value"]) == ("30d", "web")]
    expect(web["currencies"]["reporting"], orders=3, revenue="19.46")
    january = {c["cohort"]: c for c in result["cohorts"] if c["age_months"] == 0}["2024-01"]
    assert january["orders"] == 3 and january["currencies"]["reporting"]["revenue"] == "19.46"
    currencies = [d.get("currency") for d in result["distributions"]]
    assert currencies == [None, None, "EUR", "JPY", "KWD", "USD"]
    [unconverted] = [w for w in run(events, config, "2024-01-06T00:00:00Z")["windows"] if w["window"] == "30d"]
    assert "reporting" not in unconverted["currencies"]  # only where it is asked for


def test_parsing():
    assert parse_time("2026-01-02T03:04:05.678Z") == 1_767_323_045_678
    assert parse_time("2026-01-02T04:04:05.6789+01:00") == 1_767_323_045_678
    assert parse_time("1767323045678") == parse_time(1_767_323_045_678) == 1_767_323_045_678
    assert parse_amount("72.12", "EUR") == 7212 and parse_amount("1.234", "KWD") == 1234
    assert parse_amount("1.000", "EUR") == parse_amount("1e0", "EUR") == 100  # the value is kept
    assert parse_amount("7.0", "JPY") == 7 and parse_amount("100000000000.00", "EUR") == 10**13
    for amount, currency in [
        ("-1", "EUR"), ("1.234", "EUR"), ("1.5", "JPY"), ("x", "EUR"), ("1e-3", "EUR"),
        ("1." + "0" * 40 + "1", "EUR"), ("100000000000.01", "EUR"), ("1e999999999", "EUR"),
    ]:
        try:
            parse_amount(amount, currency)
        except ValueError:
            continue
        raise AssertionError(f"{amount} {currency} was accepted")
    minutes = [window.resolution_ms // 60_000 for window in read_config({}).windows]
    assert minutes == [15, 60, 180, 1440]


def test_compare():
    oracle = [{
        "as_of": "2024-01-01T00:00:00Z",
        "windows": [{"window": "7d", "orders": 3, "churn_ratio": 1 / 3, "complete": True,
                     "currencies": {"EUR": {"revenue": "1.00", "average_order_value": "0.333333333"}}}],
        "stages": [{"stage": "new", "status": "active", "customers": 3}],
    }]

    def differences(change) -> int:
        program = copy.deepcopy(oracle)
        change(program[0])
        return len(compare(oracle, program).differences)

    window = lambda program: program["windows"][0]
    money = lambda program: window(program)["currencies"]["EUR"]
    zero = {"stage": "loyal", "status": "active", "customers": 0}
    assert compare(oracle, copy.deepcopy(oracle)).compared == 6
    assert differences(lambda p: p.update(as_of="2024-01-01T00:00:00.000Z", more=1)) == 0
    assert differences(lambda p: window(p).update(churn_ratio=0.33333333333)) == 0
    assert differences(lambda p: money(p).update(average_order_value="0.3333333")) == 0
    assert differences(lambda p: p["stages"].append(zero)) == 0
    assert differences(lambda p: p["stages"].append({**zero, "customers": 1})) == 1
    assert differences(lambda p: p["stages"].clear()) == 1
    assert differences(lambda p: p["windows"].append({"window": "30d", "orders": 0})) == 1
    assert differences(lambda p: window(p).update(orders=4)) == 1
    assert differences(lambda p: window(p).pop("orders")) == 1
    assert differences(lambda p: window(p).update(churn_ratio=0.3333)) == 1
    assert differences(lambda p: window(p).update(churn_ratio=None)) == 1
    assert differences(lambda p: window(p).update(complete=1)) == 1
    assert differences(lambda p: money(p).update(revenue="1.01")) == 1
    assert differences(lambda p: money(p).update(average_order_value="0.3333")) == 1
    assert differences(lambda p: window(p)["currencies"].update(USD={"revenue": "2.00"})) == 1
    assert differences(lambda p: window(p)["currencies"].update(USD={"revenue": "0.00"})) == 0
    assert differences(lambda p: window(p)["currencies"].clear()) == 1
    assert differences(lambda p: p.update(as_of="2024-01-02T00:00:00Z")) == 1

    oracle[0]["distributions"] = [{"name": "interpurchase_seconds", "count": 2, "sum": 300.5,
                                   "quantiles": {"0.5": 100.0, "0.9": 0.0}},
                                  {"name": "order_value", "currency": "EUR", "count": 2, "sum": "3.00",
                                   "quantiles": {"0.5": 1.0}}]
    oracle[0]["transitions"] = [{"from": "none", "to": "active", "count": 2}]
    oracle[0]["referrals"] = 7
    gaps = lambda program: program["distributions"][0]
    value = lambda program: program["distributions"][1]
    assert differences(lambda p: gaps(p)["quantiles"].update({"0.5": 103.9, "0.9": 0.4})) == 0
    assert differences(lambda p: gaps(p)["quantiles"].update({"0.5": 105, "0.9": 1.2})) == 2
    assert differences(lambda p: gaps(p)["quantiles"].pop("0.5")) == 1
    assert differences(lambda p: gaps(p).update(sum=300)) == 1
    assert differences(lambda p: value(p).update(sum="3.0", quantiles={"0.5": "1.03"})) == 0
    assert differences(lambda p: value(p).update(sum="3.01", quantiles={"0.5": 1.05})) == 2
    assert differences(lambda p: value(p).update(currency="USD")) == 2
    assert differences(lambda p: p["transitions"].append({"from": "active", "to": "lapsed", "count": 0})) == 0
    assert differences(lambda p: p["transitions"].append({"from": "active", "to": "lapsed", "count": 1})) == 1
    assert differences(lambda p: p.update(referrals=8)) == 1
    assert differences(lambda p: p.pop("referrals")) == 1


def test_cdnow():
    header = " customer_id  date number_of_cds  dollar_value\r\n"
    master, sample = io.StringIO(), io.StringIO()
    assert convert([header, " 00004 19970101  2   29.33\r\n"], master) == 1
    assert convert([" 00004 0001 19970101  2   29.33\r\n"], sample) == 1
    assert master.getvalue() == sample.getvalue()
    assert master.getvalue().splitlines() == [
        "customer_id,time,amount,currency", "00004,1997-01-01T00:00:00Z,29.33,USD",
    ]


if __name__ == "__main__":
    tests = [test for name, test in list(globals().items()) if name.startswith("test_")]
    for test in tests:
        test()
    print(f"{len(tests)} tests passed")
