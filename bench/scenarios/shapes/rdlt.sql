SELECT g AS id, (g * 7919 % 100000)::int4 AS quantity, g * 1000003 AS reference, g / 7.0::float8 AS score,
	(g * 123.4567 / (1 + g % 13))::numeric(12,4) AS amount, 'customer name number ' || g AS customer,
	('status-' || g % 6)::varchar(20) AS status, g % 2 = 0 AS active,
	timestamptz '2015-06-01 00:00:00+00' + g * interval '11 second' AS updated_at, date '2000-01-01' + (g % 9000)::int4 AS day,
	md5(g::text)::uuid AS token, CASE WHEN g % 3 <> 0 THEN md5((g * 3)::text) END AS note
FROM generate_series(1, {rows}::int8) g
