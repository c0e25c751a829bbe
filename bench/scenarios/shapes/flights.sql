SELECT timestamp '2001-01-01' + (g * 37 % 525600) * interval '1 minute' AS date,
	(g * 7919 % 240 - 30)::int4 AS delay, (g * 104729 % 2700 + 60)::int4 AS distance,
	substr(upper(md5((g * 13 % 300)::text)), 1, 3) AS origin, substr(upper(md5((g * 17 % 300)::text)), 1, 3) AS destination
FROM generate_series(1, {rows}::int8) g
