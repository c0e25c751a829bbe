// Package draft writes a pipeline document from two URIs and what the source has:
// for init, which hands it to a person, and for copy, which runs it as it is.
//
// An End is one of the two sides. It keeps what is secret apart: the document names a
// variable such as SOURCE_PASSWORD, and Env answers it. So one text serves both
// commands, goes through the one parser, and nothing of it can be printed by accident.
//
//	postgres://user@host:5432/database?sslmode=..   also without a host: as libpq finds it
//	duckdb:PATH                                     a database file
//	file:PATH?format=parquet                        a file, folder or pattern; a folder to write to
//
// The package does no I/O.
package draft
