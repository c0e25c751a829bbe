// Package rowcheck compares two tables, wherever they are: row by row in its verdict,
// by digests on the way.
//
// # Digest
//
// A table is cut into 1,024 buckets by a hash of the key. A bucket is known by how many
// rows it has, by the sum of a 64-bit hash of every whole row and by the exclusive or of
// a second one. Both hashes are those of PostgreSQL (hashtextextended, seeds 0 and 1)
// over the text that PostgreSQL gives a record, so that a server computes its digest
// where the rows are and only 1,024 lines travel. Rows that are elsewhere, in files or in
// memory, are hashed here to the same numbers.
//
// The count alone misses a row that stands in for another, the exclusive or alone a row
// that is there twice more, the sum alone nothing that is known: two of the three would
// have to fail at once, in one bucket.
//
// # What is found
//
// Of the buckets that differ the rows are fetched from both sides, and compared as
// texts. A row counts once, as one of
//
//	missing   the key is there less often than it should be
//	doubled   a row that should be there is there again
//	extra     a row that should not be there
//	changed   the key is there, with other values
//
// with the keys of the first of each. Without a key the whole row is the key: a changed
// row is then one that is missing and one that is extra.
//
// A unique index on a table that is appended to would refuse the very row that is looked
// for, so it is an error as well: say Append of the table.
//
// The two looks at a table, for digests and for rows, see the same rows only if nobody
// writes in between, or if it is given a transaction that is REPEATABLE READ.
package rowcheck
