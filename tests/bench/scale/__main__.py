"""Prints the table of deploy/README.md."""

from tests.bench.scale import NAMES, REQUESTS, Constants, distinct, forecast, population, stream, table

of = population()
print(table([forecast(millions * 1e6, of, Constants()) for millions in (1, 10, 100)]))
print(f"\n{REQUESTS:,} requests for {NAMES:,} names want {len(set(stream(of))):,} of them.")
print(f"Computed: {distinct(of.shares, REQUESTS):,.0f}.")
