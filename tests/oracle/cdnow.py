#!/usr/bin/env python3
"""CDNOW_master.txt or CDNOW_sample.txt -> CSV that oracle.py and `retentiond replay` read.

    python cdnow.py CDNOW_master.txt > cdnow.csv

master: customer id, date, number of CDs, dollars; with a header line.
sample: master customer id, sample customer id, date, number of CDs, dollars; no header line.

The master id names the customer in both. The data has no order ids, so every line is an order.
"""

import csv
import sys


def convert(lines, out) -> int:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["customer_id", "time", "amount", "currency"])
    orders = 0
    for line in lines:
        fields = line.split()
        if not fields or not fields[0].isdigit():
            continue
        customer, day, dollars = fields[0], fields[-3], fields[-1]
        time = f"{day[:4]}-{day[4:6]}-{day[6:]}T00:00:00Z"
        writer.writerow([customer, time, dollars, "USD"])
        orders += 1
    return orders


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: cdnow.py CDNOW_master.txt|CDNOW_sample.txt > cdnow.csv", file=sys.stderr)
        return 2
    with open(sys.argv[1], encoding="ascii") as lines:
        orders = convert(lines, sys.stdout)
    print(f"{orders} orders", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
