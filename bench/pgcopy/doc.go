// Command pgcopy measures copies from PostgreSQL to PostgreSQL against bare SQL.
//
//	go run ./bench/pgcopy                                     append, 3 M narrow rows
//	go run ./bench/pgcopy -workload wide -rounds 9            another table
//	go run ./bench/pgcopy -mode upsert -match 50              1 M rows, half of them known
//	go run ./bench/pgcopy -mode replace                       a new table, indexed, that takes the place
//	go run ./bench/pgcopy -mode start                         ten rows: what a run costs before the first
//	go run ./bench/pgcopy -mode tables                        1,000 tables of 100 rows
//
// It starts a PostgreSQL server of its own with default durability, makes the tables
// from SQL that yields the same rows each time, and builds rapidbyte-node. Each round
// runs the peer and rapidbyte-node in turn, the order swapped from round to round, each
// into tables of its own with a checkpoint before; the first round warms up and does not
// count. A round that something else on the machine took CPU from is run again. After
// each round that counts, the rows of every contestant are compared with the expected
// ones by count and hash: what lost rows looks fast.
//
// The peers are what a person does by hand:
//
//   - append: psql COPY TO STDOUT (FORMAT binary) into psql COPY FROM STDIN
//   - upsert: the same pipe into a temporary table, then MERGE, or INSERT ON CONFLICT,
//     that leaves equal rows alone
//   - replace: the same pipe into a new table, its primary key, and a rename, in one
//     transaction
//
// Ratios are taken within a round. CPU of a client is that of its processes, user and
// system; CPU of the server is that of all of its processes; the peak of memory is that
// of resident pages, summed over the processes of a contestant, looked at every 20 ms.
//
// stdout is a Markdown table and, behind it, one line of JSON per run.
package main
