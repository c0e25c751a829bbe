-- What came in: new rows only, some with the latest date that a run before has read.
BEGIN;
INSERT INTO artist VALUES (276, 'Björk'), (277, NULL), (278, '');
INSERT INTO album VALUES (348, 'Homogenic', 276), (349, 'O''Tab	and "quotes"', 276);
INSERT INTO track SELECT 3503 + i, 'Track ' || i, 348, 1, NULL, CASE WHEN i % 2 = 0 THEN 'Björk' END, 1000 * i, NULL, 99999999.99 FROM generate_series(1, 500) i;
INSERT INTO playlist VALUES (19, 'new');
INSERT INTO playlist_track SELECT 19, track_id FROM track WHERE album_id = 348;
INSERT INTO employee VALUES (9, 'Ende', 'Ida', NULL, 1, '1900-02-28 00:00:00', '2026-01-01 23:59:59.999999');
INSERT INTO invoice SELECT 412 + i, 1, (SELECT max(invoice_date) FROM invoice), NULL, NULL, NULL, NULL, NULL, i / 3.0 FROM generate_series(1, 40) i;
INSERT INTO invoice_line SELECT 2240 + i, 412 + i % 40 + 1, 3503 + i, 0.99, i FROM generate_series(1, 200) i;
COMMIT;
