-- A day in the shop: rows that are new or changed, several of them with one time, and
-- some with the latest time that a run before has read.
BEGIN;
INSERT INTO actor SELECT 200 + i, 'NEW', 'ACTOR ' || i, (SELECT max(last_update) FROM actor) FROM generate_series(1, 50) i;
INSERT INTO film (film_id, title, description, release_year, language_id, rental_rate, length, replacement_cost, rating, last_update, special_features, fulltext)
SELECT 1000 + i, 'FILM ' || i, E'two\nlines, a \\ and "quotes"', 1901 + i % 255, 1, i % 100, NULL, 999.99, 'NC-17',
	(SELECT max(last_update) FROM film), ARRAY['a,b', NULL, '{"x"}', ''], to_tsvector('a FILM of the year ' || i)
FROM generate_series(1, 300) i;
UPDATE film SET rating = NULL, special_features = '{}', length = 0, last_update = '2023-01-01 00:00:00+00' WHERE film_id % 7 = 0;
UPDATE language SET name = 'Ελληνικά', last_update = '2023-01-01 00:00:00+00' WHERE language_id = 6;
UPDATE staff SET picture = decode('00ff5c0a', 'hex'), last_update = '2023-01-01 00:00:00.000001+00' WHERE staff_id = 2;
UPDATE customer SET email = NULL, activebool = NOT activebool, last_update = '2023-01-01 00:00:00+00' WHERE customer_id % 10 = 3;
UPDATE film_actor SET last_update = '2023-01-01 00:00:00+00' WHERE film_id % 5 = 1;
UPDATE rental SET return_date = NULL, last_update = '2023-01-02 03:04:05.678901+00' WHERE rental_id % 9 = 4;
INSERT INTO payment SELECT 100000 + i, 1, 1, 1, i / 100.0, '2022-07-31 12:00:00+00' FROM generate_series(1, 400) i;
COMMIT;
