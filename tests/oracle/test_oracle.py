#!/usr/bin/env python3
"""Histories whose figures were worked out by hand: `python test_oracle.py`."""

import copy
import gzip
import io
import json
import tempfile
from pathlib import Path
from zoneinfo import ZoneInfo

from cdnow import convert
from compare import compare
from oracle import DAY_MS, civil_day, evaluate, first_instant, parse_amount, parse_time, read_config

JANUARY_1 = parse_time("2024-01-01T00:00:00Z")
NOON = DAY_MS // 2


def run(events: list[dict], config: dict, as_of: str | int, parts=("windows",)) -> dict:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "events.ndjson.gz")
        with gzip.open(path, "wt") as file:
            file.writelines(json.dumps(event) + "\n" for event in events)
        [result], rejected = evaluate([path], config, [parse_time(as_of)], parts)
    assert not rejected, rejected
    return result


def expect(found: dict, **expected):
    for name, value in expected.items():
        assert found[name] == value, f"{name}: {found[name]!r}, expected {value!r}"


def order(customer, time, order_id=None, amount="10.00", currency="EUR", **attributes) -> dict:
    return {"type": "order", "order_id": order_id, "customer_id": customer, "time": time,
            "amount": amount, "currency": currency, "attributes": attributes}


def test_rolling_window():
    """P = 10 days, A = 20 days, p = day 40: start (10, 30], end (20, 40], within (30, 40]."""

    def at(day: int, offset: int = NOON) -> int:
        return JANUARY_1 + day * DAY_MS + offset

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
    assert result["cohorts"][0]["currencies"] == {"EUR": {"revenue": "20.00"}}

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
    assert differences(lambda p: p.update(as_of="2024-01-02T00:00:00Z")) == 1


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
