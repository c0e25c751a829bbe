SELECT g AS id, (g * 7919 % 100000)::int4 AS k, (g * 1.000123)::float8 / 3 AS v,
	timestamptz '2020-01-01 00:00:00+00' + g * interval '1.234567 second' AS ts,
	'item-' || lpad((g * 31 % 1000000007)::text, 15, '0') AS name
FROM generate_series(1, {rows}::int8) g
