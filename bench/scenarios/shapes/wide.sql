SELECT g AS id, (g % 32000)::int2 AS c_small, (g * 17 % 1000000)::int4 AS c_int,
	CASE WHEN g % 10 <> 0 THEN g * 1000003 END AS c_big_n, (g * 1.5)::float4 AS c_f4, (g / 7.0)::float8 AS c_f8,
	g % 2 = 0 AS c_bool, CASE WHEN g % 7 <> 0 THEN g % 3 = 0 END AS c_bool_n,
	(g * 123.4567 / (1 + g % 13))::numeric(18,4) AS c_num, CASE WHEN g % 5 <> 0 THEN (g::numeric * g * 100003 / 7)::numeric(30,6) END AS c_num_n,
	date '2000-01-01' + (g % 9000)::int4 AS c_date, timestamp '2010-01-01' + g * interval '1 minute' AS c_ts,
	CASE WHEN g % 4 <> 0 THEN timestamptz '2015-06-01 00:00:00+00' + g * interval '11 second' END AS c_tstz_n,
	md5(g::text)::uuid AS c_uuid, 'status-' || g % 6 AS c_status, 'customer name number ' || g AS c_name,
	CASE WHEN g % 3 <> 0 THEN repeat(md5((g * 3)::text), 2) END AS c_note_n,
	jsonb_build_object('id', g, 'tags', jsonb_build_array('a', 'b', g % 10), 'price', round(g * 0.37, 2), 'nested', jsonb_build_object('k', 'v' || g % 100)) AS c_json,
	decode(md5((g + 1)::text), 'hex') AS c_bytes, CASE WHEN g % 6 <> 0 THEN time '00:00' + g % 86400 * interval '1 second' END AS c_time_n
FROM generate_series(1, {rows}::int8) g
