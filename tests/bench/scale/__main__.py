"""Prints the table of deploy/README.md."""

from tests.bench.scale import DAILY, NAMES, REQUESTS, Constants, distinct, forecast, population, stream, table

of = population()
print(table([forecast(pulls, of, Constants()) for pulls in DAILY]))
print(f"\n{REQUESTS:,} requests for {NAMES:,} names want {len(set(stream(of))):,} of them.")
print(f"Computed: {distinct(of.shares, REQUESTS):,.0f}.")
