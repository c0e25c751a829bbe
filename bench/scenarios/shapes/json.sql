SELECT g AS id, jsonb_build_object('id', g, 'kind', 'order', 'customer', jsonb_build_object('name', 'customer ' || g % 1000, 'mail', md5(g::text) || '@example.org',
	'tags', jsonb_build_array('a', 'b', g % 10)), 'lines', jsonb_build_array(jsonb_build_object('sku', md5((g * 3)::text), 'count', g % 9, 'price', round(g * 0.37, 2)),
	jsonb_build_object('sku', md5((g * 5)::text), 'count', g % 7, 'price', round(g * 0.11, 2))), 'note', repeat(md5((g * 7)::text), 8)) AS document
FROM generate_series(1, {rows}::int8) g
