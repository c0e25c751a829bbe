package main

import (
	"fmt"
	"strings"
)

// The schemas of the bench's database. Each contestant has one more, of its own.
const (
	sourceSchema = "bench" // what is copied
	baseSchema   = "base"  // what is there before an upsert or replace
)

// workload is a table and its rows. The same number of rows is the same rows always.
type workload struct {
	name  string
	rows  int64  // unless asked for otherwise
	key   bool   // id is the primary key
	query string // %d is the number of rows
}

var workloads = []workload{
	{name: "narrow", rows: 3_000_000, query: narrowSQL},
	{name: "wide", rows: 1_000_000, query: wideSQL},
	{name: "flights", rows: 3_000_000, query: flightsSQL},
	{name: "rdlt", rows: 1_000_000, key: true, query: rdltSQL},
}

const narrowSQL = `SELECT g AS id, (g * 7919 %% 100000)::int4 AS k, (g * 1.000123)::float8 / 3 AS v,
	timestamptz '2020-01-01 00:00:00+00' + g * interval '1.234567 second' AS ts,
	'item-' || lpad((g * 31 %% 1000000007)::text, 15, '0') AS name
FROM generate_series(1, %d::int8) g`

const flightsSQL = `SELECT timestamp '2001-01-01' + (g * 37 %% 525600) * interval '1 minute' AS date,
	(g * 7919 %% 240 - 30)::int4 AS delay, (g * 104729 %% 2700 + 60)::int4 AS distance,
	substr(upper(md5((g * 13 %% 300)::text)), 1, 3) AS origin, substr(upper(md5((g * 17 %% 300)::text)), 1, 3) AS destination
FROM generate_series(1, %d::int8) g`

const rdltSQL = `SELECT g AS id, (g * 7919 %% 100000)::int4 AS quantity, g * 1000003 AS reference, g / 7.0::float8 AS score,
	(g * 123.4567 / (1 + g %% 13))::numeric(12,4) AS amount, 'customer name number ' || g AS customer,
	('status-' || g %% 6)::varchar(20) AS status, g %% 2 = 0 AS active,
	timestamptz '2015-06-01 00:00:00+00' + g * interval '11 second' AS updated_at, date '2000-01-01' + (g %% 9000)::int4 AS day,
	md5(g::text)::uuid AS token, CASE WHEN g %% 3 <> 0 THEN md5((g * 3)::text) END AS note
FROM generate_series(1, %d::int8) g`

const wideSQL = `SELECT g AS id, (g %% 32000)::int2 AS c_small, (g * 17 %% 1000000)::int4 AS c_int,
	CASE WHEN g %% 10 <> 0 THEN g * 1000003 END AS c_big_n, (g * 1.5)::float4 AS c_f4, (g / 7.0)::float8 AS c_f8,
	g %% 2 = 0 AS c_bool, CASE WHEN g %% 7 <> 0 THEN g %% 3 = 0 END AS c_bool_n,
	(g * 123.4567 / (1 + g %% 13))::numeric(18,4) AS c_num, CASE WHEN g %% 5 <> 0 THEN (g::numeric * g * 100003 / 7)::numeric(30,6) END AS c_num_n,
	date '2000-01-01' + (g %% 9000)::int4 AS c_date, timestamp '2010-01-01' + g * interval '1 minute' AS c_ts,
	CASE WHEN g %% 4 <> 0 THEN timestamptz '2015-06-01 00:00:00+00' + g * interval '11 second' END AS c_tstz_n,
	md5(g::text)::uuid AS c_uuid, 'status-' || g %% 6 AS c_status, 'customer name number ' || g AS c_name,
	CASE WHEN g %% 3 <> 0 THEN repeat(md5((g * 3)::text), 2) END AS c_note_n,
	jsonb_build_object('id', g, 'tags', jsonb_build_array('a', 'b', g %% 10), 'price', round(g * 0.37, 2), 'nested', jsonb_build_object('k', 'v' || g %% 100)) AS c_json,
	decode(md5((g + 1)::text), 'hex') AS c_bytes, CASE WHEN g %% 6 <> 0 THEN time '00:00' + g %% 86400 * interval '1 second' END AS c_time_n
FROM generate_series(1, %d::int8) g`

// create returns the statements that make the table and its rows.
func (w workload) create(rows int64, key bool) []string {
	table := sourceSchema + "." + w.name
	out := []string{fmt.Sprintf("CREATE TABLE %s AS %s", table, fmt.Sprintf(w.query, rows))}
	if key || w.key {
		out = append(out, "ALTER TABLE "+table+" ADD PRIMARY KEY (id)")
	}
	return append(out, "VACUUM (FREEZE, ANALYZE) "+table)
}

// known is what an upsert finds in its target.
type known string

// unchanged: every row is there already, as it is.
const unchanged known = "unchanged"

// base returns the statements that make the table which is there before an upsert:
// as many rows as are copied, of which a part has known keys and other values.
func (w workload) base(rows int64, match known) []string {
	from, to := sourceSchema+"."+w.name, baseSchema+"."+w.name
	fill := "SELECT * FROM " + from
	if match != unchanged {
		var percent int64
		_, _ = fmt.Sscan(string(match), &percent) // flags are checked before
		first := rows * (100 - percent) / 100
		fill = fmt.Sprintf("SELECT id + %d, k + 1, v, ts, name FROM %s", first, from)
	}
	return []string{
		fmt.Sprintf("CREATE TABLE %s (LIKE %s INCLUDING ALL)", to, from),
		"INSERT INTO " + to + " " + fill, "VACUUM (FREEZE, ANALYZE) " + to,
	}
}

// digest returns a query for the count and the hash of rows, whatever their order.
func digest(rows string) string {
	return "SELECT count(*), sum(hashtextextended(t::text, 0)) FROM " + rows + " t"
}

// upserted is what an upsert should leave in its target.
func (w workload) upserted() string {
	from, base := sourceSchema+"."+w.name, baseSchema+"."+w.name
	return fmt.Sprintf("(SELECT * FROM %[1]s UNION ALL SELECT * FROM %[2]s b WHERE NOT EXISTS (SELECT FROM %[1]s s WHERE s.id = b.id))", from, base)
}

// manyTables returns statements for n tables of 100 rows, a hundred at a time: each
// table takes locks until the end of its transaction.
func manyTables(n int) []string {
	var out []string
	for first := 0; first < n; first += 100 {
		var b strings.Builder
		for i := first; i < min(n, first+100); i++ {
			fmt.Fprintf(&b, "CREATE TABLE %s.t%04d AS %s;\n", sourceSchema, i, fmt.Sprintf(narrowSQL, 100))
		}
		out = append(out, b.String())
	}
	return append(out, "VACUUM (FREEZE, ANALYZE)")
}
