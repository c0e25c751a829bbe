SELECT g AS id, (SELECT string_agg(md5((g * i)::text), '') FROM generate_series(1, 50) i) AS body FROM generate_series(1, {rows}::int8) g
