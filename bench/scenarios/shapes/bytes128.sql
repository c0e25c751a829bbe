SELECT g AS id, md5(g::text) || md5((g * 3)::text) || md5((g * 5)::text) AS body FROM generate_series(1, {rows}::int8) g
